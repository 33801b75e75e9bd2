"""Iterations over what is no queryset: numbers, dates, lists and the lines of files."""

from __future__ import annotations

import csv
import json
from datetime import date, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from testapp.models import Row

from defer_core.errors import CallableForbiddenError, OptionError
from defer_core.testing import drain, in_memory, run_one
from defer_iteration import IterationRefusedError, KeyRange, current_iteration, current_shard, models
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.model.iteration import IterationState
from defer_iteration.sources import dates, lines, listed, numbers

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

seen: list[Any] = []
raising: set[Any] = set()
finalized: list[dict[str, Any]] = []
LISTED: list[str] = []
CONTENT = b"id,name\n1,Ada\n2,\xff\n3,Grace\n"


@pytest.fixture(autouse=True)
def _empty() -> None:
    for each in (seen, raising, finalized, LISTED):
        each.clear()


def note(row: Any) -> None:
    if row in raising:
        raise ValueError(row)
    seen.append(row)
    shard = current_shard()
    assert shard is not None
    shard.count("passed")


def create(row: int) -> None:
    Row.objects.create(number=row)
    note(row)


def note_all(rows: list[Any]) -> None:
    if raising.intersection(rows):
        raise ValueError(rows)
    seen.extend(rows)


def end() -> None:
    iteration = current_iteration()
    assert iteration is not None
    finalized.append(dict(iteration.counters))


def the_list() -> list[str]:
    return LISTED


def a_dict() -> dict[str, str]:
    return {"a": "b"}


def opened() -> BytesIO:
    return BytesIO(CONTENT)


def read_csv(line: str) -> None:
    (row,) = csv.reader([line])
    seen.append(row)


def read_json(line: str) -> None:
    seen.append(json.loads(line))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (numbers(1, 41), list(range(1, 41))),
        (numbers(2**62, 2**62 + 5), list(range(2**62, 2**62 + 5))),
        (numbers(5, 5), []),
        (numbers(5, -5), []),
        (dates(date(2024, 2, 27), date(2024, 3, 1)), [date(2024, 2, day) for day in (27, 28, 29)] + [date(2024, 3, 1)]),
    ],
)
def test_every_row_once_and_then_finalize(queue: Any, source: Any, expected: list[Any]) -> None:
    walk(source, note, end, _shards=3)
    drain(queue)
    assert sorted(seen) == expected and finalized == [{"passed": len(expected)} if expected else {}]


def test_rows_that_raise_are_called_again_by_their_keys(queue: Any) -> None:
    raising.update((3, 17))
    handle = walk(numbers(0, 20), note, end, _shards=2, _on_error="quarantine", _max_attempts=2)
    drain(queue)
    assert [row.key for row in handle.progress().quarantined] == [(3,), (17,)]
    raising.clear()
    assert handle.retry_quarantined() == 2
    drain(queue)
    assert sorted(seen) == list(range(20)) and finalized == [{"passed": 18}]


def test_a_page_and_its_checkpoint_can_be_one_transaction(queue: Any) -> None:
    with pytest.raises(IterationRefusedError, match="say by _using"):
        walk(numbers(0, 9), create, end, _atomic=True)
    raising.add(4)
    walk(numbers(0, 9), create, end, _shards=1, _atomic=True, _using="default", _on_error="quarantine", _max_attempts=1)
    drain(queue)
    assert sorted(Row.objects.values_list("number", flat=True)) == [0, 1, 2, 3, 5, 6, 7, 8]


@pytest.mark.parametrize("atomic", [False, True])
def test_lists_of_rows_are_passed_of_sources_too(queue: Any, atomic: bool) -> None:
    raising.update((3, 17))
    handle = walk(
        numbers(0, 60), note_all, end, _batch=8, _shards=3, _on_error="quarantine", _max_attempts=2,
        _atomic=atomic, _using="default",
    )  # fmt: skip
    drain(queue)
    assert sorted(seen) == [number for number in range(60) if number not in raising]
    assert sorted(row.key for row in handle.progress().quarantined) == [(3,), (17,)] and finalized == [{}]


def test_what_a_list_gets_after_the_plan_is_not_walked(queue: Any) -> None:
    LISTED.extend("abcdef")
    handle = walk(listed(the_list), note, end, _shards=2)
    run_one(queue.queued()[0], queue)
    assert handle.progress().total == 6
    LISTED.append("after the plan")
    drain(queue)
    assert sorted(seen) == list("abcdef") and finalized == [{"passed": 6}]


def test_a_function_that_returns_no_sequence_holds_the_iteration(queue: Any) -> None:
    handle = walk(listed(a_dict), note, end)
    drain(queue)
    assert handle.progress().state is IterationState.HELD and "a dict, which is no sequence" in handle.progress().reason


def test_the_lines_of_a_file(queue: Any, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,name\n" + "".join(f'{index},"a, b"\n' for index in range(50)))
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"id": index}) for index in range(50)))
    walk(lines(tmp_path / "rows.csv", header=True), read_csv, end, _shards=7)
    drain(queue)
    assert sorted(seen) == sorted([str(index), "a, b"] for index in range(50))
    seen.clear()
    walk(lines(str(tmp_path / "rows.jsonl")), read_json, end, _shards=7)
    drain(queue)
    assert sorted(row["id"] for row in seen) == list(range(50))


def test_what_is_appended_after_the_plan_is_not_walked(queue: Any, tmp_path: Path) -> None:
    file = tmp_path / "rows"
    file.write_text("".join(f"{index}\n" for index in range(9)))
    walk(lines(file), note, end, _shards=2)
    run_one(queue.queued()[0], queue)
    with file.open("a") as more:
        more.write("more\n" * 100)
    drain(queue)
    assert sorted(seen) == [str(index) for index in range(9)]


def test_shards_without_a_range_are_of_the_generation_of_their_name_too(queue: Any, tmp_path: Path) -> None:
    (tmp_path / "rows").write_text("a\nb\n")
    handle = walk(lines(tmp_path / "rows"), note, end, _shards=5, _name="few")
    run_one(queue.queued()[0], queue)
    found = handle.progress().shards
    assert [each.done for each in found] == [False, False, True, True, True]
    assert len({each.generation for each in found}) == 1 and found[0].generation > 0
    drain(queue)
    assert sorted(seen) == ["a", "b"]


def test_a_line_that_is_no_text_counts_as_a_row_that_raises(queue: Any) -> None:
    handle = walk(lines(opened, header=True), note, end, _shards=1, _on_error="quarantine", _max_attempts=2)
    drain(queue)
    (aside,) = handle.progress().quarantined
    assert sorted(seen) == ["1,Ada", "3,Grace"] and (aside.key, aside.attempts) == ((14,), 2)
    assert "UnicodeDecodeError" in aside.error
    walk(lines(opened, encoding="latin-1"), note, end)
    drain(queue)
    assert "2,\xff" in seen


def test_the_lines_of_much_are_estimated(tmp_path: Path) -> None:
    file = tmp_path / "rows"
    file.write_bytes(b"".join(b"x" * (index % 50) + b"\n" for index in range(40_000)))
    rows = lines(file)()
    (whole,) = rows.split(1).ranges
    estimated = rows.count(whole, None)
    assert estimated is not None and abs(estimated - 40_000) < 400
    assert rows.count(whole, (file.stat().st_size - 100 * 25,)) in range(50, 200)
    first, second = rows.divide(whole, None, 2, estimated)
    assert first.upper == second.lower and abs(first.upper[0] - file.stat().st_size / 2) < 60
    assert rows.count(KeyRange(lower=(0,), upper=(91,)), None) == 13


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: numbers(0, 2.5), r"stop is 2\.5"),
        (lambda: numbers(True, 5), "start is True"),
        (lambda: dates(date(2024, 1, 1), "2024-02-01"), "last is '2024-02-01'"),
        (lambda: dates(datetime(2024, 1, 1), date(2024, 2, 1)), "first is datetime"),
        (lambda: listed([1, 2]), r"func is \[1, 2\]"),
        (lambda: lines(5), "file is 5"),
        (lambda: lines("rows", header="id"), "header is 'id'"),
        (lambda: lines("rows", encoding="utf-16"), "encoding is 'utf-16'"),
        (lambda: lines("rows", encoding="no such"), "encoding is 'no such'"),
        (lambda: lines("rows", encoding=None), "encoding is None"),
    ],
)
def test_sources_that_make_no_sense(make: Any, why: str) -> None:
    with pytest.raises(OptionError, match=why):
        make()


@pytest.mark.parametrize("options", [{"order_field": "number"}, {"key_ranges_getter": the_list}])
def test_options_of_querysets_are_refused(queue: Any, options: dict[str, Any]) -> None:
    with pytest.raises(IterationRefusedError, match="of their own"):
        walk(numbers(0, 5), note, end, **options)
    assert not models.Iteration.objects.exists()


def test_it_is_kept_on_the_default_alias_or_where_it_is_told(queue: Any) -> None:
    assert walk(numbers(0, 5), note, end).alias == "default"
    assert walk(numbers(0, 5), note, end, _using="other").alias == "other"
    with pytest.raises(IterationRefusedError, match="not among DATABASES"):
        walk(numbers(0, 5), note, end, _using="nowhere")
    drain(queue)
    assert sorted(seen) == sorted([*range(5)] * 2)


def test_an_allow_list_must_have_the_sources(transactional_db: None) -> None:
    mine = f"{__name__}.*"
    with in_memory(store="django", callables=[mine]), pytest.raises(CallableForbiddenError, match="NumberRows"):
        walk(numbers(0, 5), note, end)
    with in_memory(store="django", callables=[mine, "defer_iteration.sources.*"]) as queue:
        walk(numbers(0, 5), note, end)
        drain(queue)
    assert sorted(seen) == list(range(5))
