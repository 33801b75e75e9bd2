"""What a page says of an iteration, without reviving anything of it."""

from __future__ import annotations

from typing import Any

import pytest
from testapp import iterations
from testapp.models import Row, Word

from defer_core.spi import encode
from defer_core.testing import configured, drain, run_one
from defer_iteration import IterationHandle, current_shard, models
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.page import Page, page_of

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


class Trap:
    """Its pickle says so when it is revived."""

    revived: list[str] = []

    def __reduce__(self) -> Any:
        return Trap.revived.append, ("a trap",)


def charge(row: Any, api_key: str, *more: Any, **kwargs: Any) -> None:
    raise KeyError("size")


def shown(handle: IterationHandle) -> Page:
    return page_of(models.Iteration.objects.get(pk=handle.id), "default")


def fact(page: Page, name: str) -> str:
    return dict(page.facts)[name]


def planned(queue: Any, source: Any = None, **options: Any) -> IterationHandle:
    """An iteration whose shards have not begun."""
    given = {"_shards": 1, **options}
    source = Row.objects.all() if source is None else source
    handle = walk(source, given.pop("callback", iterations.callback), iterations.finalize, **given)
    run_one(queue.queued()[0], queue)
    return handle


def shard(handle: IterationHandle, index: int) -> Any:
    return models.Shard.objects.filter(pk=f"{handle.id}-{index}")


def test_nothing_is_revived(queue: Any, rows: Any) -> None:
    rows(2)
    handle = planned(queue, args=[Trap()])
    models.Shard.objects.update(
        position=encode((Trap(),)),
        failing=encode((Trap(),)),
        range=encode([(Trap(),), None, True, False]),
        error="E: 1",
    )
    models.QuarantinedRow(id="1", iteration=handle.id, index=0, key=encode((Trap(),)), error="E: 2").save()
    Trap.revived.clear()  # what is packed may be tried out
    page = shown(handle)
    assert Trap.revived == []
    (line,) = page.shards
    for said in (line.position, line.keys, page.quarantined[0][0], fact(page, "callback")):
        assert "<pickled: " in said


def test_secrets_are_hidden_in_calls_keys_and_counters(queue: Any, rows: Any) -> None:
    rows(1)
    handle = planned(queue, callback=charge, args=["s3cret", 3], password="s3cret", plan=4)
    assert fact(shown(handle), "callback").endswith("charge(row=…, api_key=••••••, 3, password=••••••, plan=4)")


@pytest.mark.on_sql  # the order of a field needs an index there
def test_keys_of_a_secret_order_are_hidden(queue: Any) -> None:
    Row.objects.bulk_create([Row(number=index, rank=1234) for index in range(4)])
    handle = planned(queue, order_field="rank", _shards=2)
    plain = shown(handle)
    assert any("1234" in each.keys for each in plain.shards)
    with configured(secrets="rank"):
        assert not any("1234" in each.keys for each in shown(handle).shards)
        models.Iteration.objects.update(reason="The row (1234, 5) of shard 0 has raised 1 times: Traceback …\nE: 1")
        assert shown(handle).reason == "E: 1"


def test_values_that_were_collected_under_a_secret_name_are_hidden(queue: Any, rows: Any) -> None:
    def collect(row: Any) -> None:
        shard = current_shard()
        assert shard is not None
        shard.collect("tokens", "s3cret")
        shard.collect("sizes", "large")

    rows(2)
    iterations.before.append(collect)
    handle = planned(queue, _delete_marker=False)
    drain(queue)
    page = shown(handle)
    assert page.counters == [("passed", "2")]
    assert (fact(page, "sizes"), fact(page, "tokens")) == ("large", "••••••")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (Row.objects.all(), "testapp.models.Row"),
        (Word.objects.filter(seen=0), "testapp.models.Word"),
        (iterations.all_rows, "testapp.iterations.all_rows"),
    ],
)
def test_the_rows_are_named(queue: Any, source: Any, said: str) -> None:
    handle = walk(source, iterations.callback, iterations.finalize)
    assert fact(shown(handle), "rows") == said


@pytest.mark.parametrize(
    ("options", "name", "said"),
    [
        ({}, "a row that raises", "is called again"),
        ({"_on_error": "fail", "_max_attempts": 1}, "a row that raises", "fails the iteration after 1 call"),
        ({"_on_error": "quarantine"}, "a row that raises", "is set aside after 5 calls"),
        ({"_atomic": True, "_limit": 7}, "options", "_atomic=True, _limit=7"),
        ({"_queue": "slow"}, "queue", "slow"),
        ({"_on_failed": iterations.on_failed}, "when it fails", "testapp.iterations.on_failed"),
        ({"_throttle": iterations.throttle}, "throttle", "testapp.iterations.throttle"),
    ],
)
def test_options_in_words(queue: Any, options: Any, name: str, said: str) -> None:
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize, **options)
    assert fact(shown(handle), name) == said


def test_a_callback_of_batches_gets_a_list(queue: Any) -> None:
    handle = walk(Row.objects.all(), iterations.batch_callback, iterations.finalize, _batch=5)
    assert fact(shown(handle), "callback") == "testapp.iterations.batch_callback(rows=[…])"


def test_a_job_that_cannot_be_read_is_left_out(queue: Any) -> None:
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize)
    models.Iteration.objects.update(job=b"\xc1")
    assert "callback" not in dict(shown(handle).facts)


def test_bars_of_equal_shares(queue: Any, rows: Any) -> None:
    rows(10)
    handle = planned(queue, _shards=3)
    shard(handle, 0).update(rows=2)
    shard(handle, 1).update(rows=9)  # it was given parts of others
    shard(handle, 2).update(rows=1, done=True)
    bars = [each.bar for each in sorted(shown(handle).shards, key=lambda each: each.shard.index)]
    assert [(each.value, each.most, each.kind) for each in bars if each] == [(2, 4, ""), (4, 4, ""), (4, 4, "is-done")]


def test_without_a_count_there_are_no_bars(queue: Any, rows: Any) -> None:
    rows(3)
    handle = planned(queue, key_ranges_getter=iterations.whole_range)
    models.Iteration.objects.update(total=None)
    page = shown(handle)
    assert (page.bar, page.share, page.rows) == (None, "", "0")
    assert [each.bar for each in page.shards] == [None]


def test_the_reason_leaves_the_traceback_to_the_last_error(queue: Any, rows: Any) -> None:
    (key,) = rows(1)
    handle = walk(Row.objects.all(), charge, iterations.finalize, args=[1], _on_error="fail", _max_attempts=1)
    drain(queue)
    page = shown(handle)
    assert page.reason == f"The row ({key},) of shard 0 has raised 1 times: KeyError: 'size'"
    assert page.error is not None and "Traceback" in page.error.text
    assert (page.error.where, page.error.times) == (f"shard 0, row {key}", 1)


def test_of_several_errors_the_last_one_is_shown(queue: Any, rows: Any) -> None:
    rows(4)
    handle = planned(queue, _shards=2)
    for index, when in enumerate((2000.0, 1000.0)):
        shard(handle, index).update(error=f"E: {index}", failed_at=when, errors=2)
    error = shown(handle).error
    assert error is not None
    assert (error.where, error.line, error.times) == ("shard 0", "E: 0", 2)
