"""Counters are what was counted, whatever the checkpoints; what cannot be kept is the error of the row that counts."""

from __future__ import annotations

import itertools
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from testapp import iterations
from testapp.models import Row

from defer_core.spi import clock
from defer_core.testing import drain
from defer_iteration import Collected, CurrentShard, TimeoutException, current_shard
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.model import counters

AMOUNTS = st.one_of(
    st.integers(-(10**59), 10**59),
    st.decimals(-(10**40), 10**40, places=20),
)


def counting(*calls: tuple[Any, ...], how: list[str] | None = None) -> dict[str, Any]:
    shard = CurrentShard(index=0, iteration_id="i" * 32)
    for method, call in zip(how or ["count"] * len(calls), calls, strict=True):
        getattr(shard, method)(*call)
    return shard.counted


@given(st.lists(st.dictionaries(st.sampled_from("abc"), AMOUNTS), max_size=8), st.data())
def test_sums_are_exact_in_any_order_and_grouping(parts: list[dict[str, Any]], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(parts)))
    shuffled = data.draw(st.permutations(parts))
    through_the_store = counters.loaded(counters.dumped(counters.merged(shuffled[:cut])))
    found = counters.merged([through_the_store, counters.merged(shuffled[cut:])])
    exact = {
        name: sum((Fraction(part[name]) for part in parts if name in part), Fraction(0))
        for name in {name for part in parts for name in part}
    }
    assert {name: Fraction(amount) for name, amount in found.items()} == exact


def test_what_can_be_counted() -> None:
    class Cents(int):
        pass

    found = counting(
        ("a",), ("a", -3), ("b", True), ("c", Decimal("1.50")), ("c", 1), ("d", 0.5), ("e", Cents(7)), ("f", 0)
    )
    assert found == {"a": -2, "b": 1, "c": Decimal("2.50"), "d": 0.5, "e": 7, "f": 0}
    assert type(found["e"]) is int and type(found["b"]) is int
    assert counting(("x", 0.1), ("x", Decimal("0.2"))) == {"x": Decimal("0.3")}


@pytest.mark.parametrize(
    "amount",
    ["1", None, b"1", 1j, Fraction(1, 2), [1], float("nan"), float("inf"), Decimal("NaN"), Decimal("-Inf")],
)
def test_an_amount_of_another_kind_is_refused_by_name(amount: Any) -> None:
    with pytest.raises(TypeError, match="'booked'"):
        counting(("booked", amount))


@pytest.mark.parametrize("amount", [10**60, -(10**60), 1e61, Decimal("1E+60"), Decimal("1E-61")])
def test_an_amount_of_too_many_digits_is_refused_by_name(amount: Any) -> None:
    with pytest.raises(ValueError, match="'booked'"):
        counting(("booked", amount))


@pytest.mark.parametrize("name", [1, None, b"a", ("a",)])
def test_a_name_that_is_no_text_is_refused(name: Any) -> None:
    with pytest.raises(TypeError, match="name of a counter"):
        counting((name,))


@pytest.fixture
def checkpoints(queue: Any) -> Any:
    """A checkpoint after each row."""
    now = itertools.count(1_000_000, 4)
    with clock.replaced(lambda: float(next(now))):
        yield


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
@pytest.mark.parametrize("amounts", [[-1, -1, -1, -1], [-3, 1, 1, 1], [Decimal("1.50"), Decimal("-0.25"), 1, 0]])
@pytest.mark.parametrize("atomic", [False, True])
def test_a_walk_counts_what_was_counted(
    queue: Any, rows: Any, checkpoints: Any, amounts: list[Any], atomic: bool
) -> None:
    keys = rows(4)

    def count(row: Any) -> None:
        shard = current_shard()
        assert shard is not None
        shard.count("net", amounts[keys.index(row.pk)])

    iterations.before.append(count)
    handle = walk(
        Row.objects.all(), iterations.callback, iterations.finalize, _shards=2, _delete_marker=False, _atomic=atomic
    )
    drain(queue, max_tasks=60)
    expected = {"net": sum(amounts), "passed": 4}
    assert iterations.counters == [expected] and handle.progress().counters == expected


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_what_cannot_be_kept_is_its_rows_error(queue: Any, rows: Any) -> None:
    keys = rows(4)

    def count(row: Any) -> None:
        if row.pk == keys[2]:
            shard = current_shard()
            assert shard is not None
            shard.count("booked", [row.pk])  # type: ignore[arg-type]

    iterations.before.append(count)
    handle = walk(
        Row.objects.all(), iterations.callback, iterations.finalize, _shards=1, _on_error="quarantine", _max_attempts=2
    )
    drain(queue)
    [row] = handle.progress().quarantined
    assert row.key == (keys[2],) and "counter 'booked'" in row.error
    assert iterations.counters == [{"passed": 3}]


# --- the least, the most, and sets ------------------------------------------------------------------------------------

NUMBERS = AMOUNTS | st.floats(-1e59, 1e59)
VALUES = st.integers(-9, 9) | st.text("abé", max_size=3)
CALLS = st.one_of(
    st.tuples(st.just("count"), AMOUNTS),
    st.tuples(st.sampled_from(["least", "most"]), NUMBERS),
    st.tuples(st.just("collect"), VALUES, st.integers(1, 6)),
)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), CALLS), max_size=12), st.data())
def test_any_order_and_grouping_comes_to_the_same(parts: list[dict[str, Any]], data: st.DataObject) -> None:
    """Also where shards count one name in different ways."""
    counted = [
        counting(*((name, *call[1:]) for name, call in part.items()), how=[call[0] for call in part.values()])
        for part in parts
    ]
    shuffled = data.draw(st.permutations(counted))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(parts)), max_size=4)))
    groups = [shuffled[low:high] for low, high in itertools.pairwise([0, *cuts, len(parts)])]
    through_the_store = [counters.loaded(counters.dumped(counters.merged(group))) for group in groups]
    expected = counters.merged(counted)
    assert counters.merged(through_the_store) == expected
    assert counters.kinds(counters.merged(through_the_store)) == counters.kinds(expected)


def test_what_the_least_the_most_and_sets_are() -> None:
    calls = [("low", 3), ("low", Decimal("0.5")), ("low", 2.5), ("high", -1), ("high", -3), ("bad", "b"), ("bad", 7)]
    how = ["least"] * 3 + ["most"] * 2 + ["collect"] * 2
    found = counters.merged([counting(*calls, how=how)])
    assert found == {"low": Decimal("0.5"), "high": -1, "bad": Collected((7, "b"), 100)}
    assert str(found["bad"]) == "7, b"


def test_a_set_keeps_the_least_values_and_says_that_there_were_more() -> None:
    found = counters.merged(counting(("bad", value, 3), how=["collect"]) for value in "dbacbd")["bad"]
    assert (found.values, found.more) == (("a", "b", "c"), True)
    assert str(found) == "a, b, c and more"
    full = counters.merged(counting(("bad", value, 4), how=["collect"]) for value in "dbacbd")["bad"]
    assert (full.values, full.more) == (("a", "b", "c", "d"), False)


def test_what_is_collected_leaves_room_for_the_rest() -> None:
    """64 KB, whatever there are of sets and other counters."""
    total = counters.merged([])
    for first in range(0, 3000, 100):
        calls = [
            call
            for number in range(first, first + 100)
            for call in (("long", f"{number:04}" + "é" * 100, 10**9), ("short", number, 10**9), ("rows",))
        ]
        interval = counting(*calls, how=["collect", "collect", "count"] * 100)
        total = counters.loaded(counters.dumped(counters.merged([total, interval])))
        assert len(counters.dumped(total)) <= 64 * 1024
    assert total["rows"] == 3000
    assert total["long"].more and len(total["long"].values) > 30
    assert total["short"].values == tuple(range(len(total["short"].values)))


def test_a_value_that_is_too_long_is_left_out() -> None:
    found = counters.merged([counting(("bad", "x" * 70_000), ("rows",), how=["collect", "count"])])
    assert found == {"bad": Collected((), 0, more=True), "rows": 1}


def test_rows_of_an_older_release_are_read() -> None:
    assert counters.loaded('{"booked": 3, "net": "-0.50", "share": 0.5}') == {
        "booked": 3,
        "net": Decimal("-0.50"),
        "share": 0.5,
    }
    assert counters.dumped({"booked": 3, "net": Decimal("-0.50")}) == '{"booked": 3, "net": "-0.50"}'


@pytest.mark.parametrize("first", ["count", "least", "most", "collect"])
@pytest.mark.parametrize("second", ["count", "least", "most", "collect"])
def test_a_name_that_is_counted_in_two_ways_is_refused_by_name(first: str, second: str) -> None:
    if first == second:
        counting(("x", 1), ("x", 2), how=[first, second])
        return
    with pytest.raises(TypeError, match=rf"{second}\(\) cannot count 'x', which is counted by {first}\(\)"):
        counting(("x", 1), ("x", 2), how=[first, second])


@pytest.mark.parametrize("value", [None, 0.5, Decimal(1), b"a", ("a",)])
def test_a_value_of_another_kind_is_not_collected(value: Any) -> None:
    with pytest.raises(TypeError, match="'bad' collects str and int"):
        counting(("bad", value), how=["collect"])


@pytest.mark.parametrize("cap", [0, -1, True, 1.5, None, "9"])
def test_a_cap_that_is_no_number_of_values_is_refused(cap: Any) -> None:
    with pytest.raises(ValueError, match="'bad' has the cap"):
        counting(("bad", 1, cap), how=["collect"])


@pytest.mark.parametrize("how", ["least", "most"])
def test_what_is_no_number_is_not_compared(how: str) -> None:
    for value in ("1", float("nan"), Decimal("Infinity"), None):
        with pytest.raises(TypeError, match="'low' takes"):
            counting(("low", value), how=[how])
    with pytest.raises(TypeError, match="name of a counter"):
        counting((1, 1), how=[how])


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
@pytest.mark.parametrize("atomic", [False, True])
def test_a_walk_hears_of_what_all_shards_have_found(queue: Any, rows: Any, checkpoints: Any, atomic: bool) -> None:
    keys = rows(8)

    def look(row: Any) -> None:
        shard = current_shard()
        assert shard is not None
        number = keys.index(row.pk)  # keys are in no order of creation on Datastore
        shard.least("lowest", number)
        shard.most("highest", Decimal(number))
        shard.collect("odd", f"row {number}", cap=3) if number % 2 else None
        if row.pk == keys[6] and not broken:
            broken.append(row.pk)
            shard.most("lowest", 1)

    broken: list[Any] = []
    iterations.before.append(look)
    handle = walk(
        Row.objects.all(), iterations.callback, iterations.finalize,
        _shards=3, _delete_marker=False, _atomic=atomic, _on_error="quarantine", _max_attempts=1,
    )  # fmt: skip
    drain(queue)
    (row,) = handle.progress().quarantined
    assert row.key == (keys[6],) and "most() cannot count 'lowest', which is counted by least()" in row.error
    expected = {
        "lowest": 0,
        "highest": 7,
        "odd": Collected(("row 1", "row 3", "row 5"), 3, more=True),
        "passed": 7,
    }
    assert iterations.counters == [expected] and handle.progress().counters == expected
    handle.retry_quarantined()
    drain(queue)
    assert handle.progress().counters == expected | {"passed": 8}


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_what_a_shard_has_counted_in_another_way_is_its_rows_error(queue: Any, rows: Any, checkpoints: Any) -> None:
    """Also after a checkpoint, in another attempt, and when a quarantined row is called again."""
    keys = rows(3)
    handed_over: list[Any] = []

    def look(row: Any) -> None:
        shard = current_shard()
        assert shard is not None
        if row.pk == keys[1] and not handed_over:
            handed_over.append(row.pk)
            raise TimeoutException
        (shard.least if row.pk == keys[2] else shard.most)("x", keys.index(row.pk))

    iterations.before.append(look)
    handle = walk(
        Row.objects.all(), iterations.callback, iterations.finalize,
        _shards=1, _delete_marker=False, _on_error="quarantine", _max_attempts=1,
    )  # fmt: skip
    drain(queue)
    assert iterations.counters == [{"x": 1, "passed": 2}]
    handle.retry_quarantined()
    drain(queue)
    (row,) = handle.progress().quarantined
    assert (row.key, row.attempts) == ((keys[2],), 2) and "least() cannot count 'x'" in row.error
