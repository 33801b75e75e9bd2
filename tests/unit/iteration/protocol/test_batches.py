"""`_batch`: lists of rows, halved down to the row that raises."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError
from django.db.models import F
from testapp import iterations
from testapp.models import Child, Row
from testapp.shapes import Shape, unreadable
from unit.iteration.deliveries import Killed, kill, poison

from defer_core import execute
from defer_core.errors import OptionError
from defer_core.spi import Delivery, clock
from defer_core.testing import drain, run_one
from defer_iteration import TimeoutException, current_shard, models
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.handle import IterationHandle
from defer_iteration.rows.memory import MemoryRows
from defer_iteration.sources import lines, numbers

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

BAD = [[0], [29], [13], [13, 14], [0, 7, 8, 9, 29], range(30)]


@pytest.fixture(autouse=True)
def _readable() -> Iterator[None]:
    yield
    unreadable.clear()


def start(**options: Any) -> IterationHandle:
    given: dict[str, Any] = {"_shards": 1, "_batch": 500, "_delete_marker": False} | options
    return walk(Row.objects.all(), iterations.batch_callback, iterations.finalize, **given)


def hit(row: Any) -> None:
    Row.objects.filter(pk=row.pk).update(hits=F("hits") + 1)


def hit_at_the_end(rows: list[Any]) -> None:
    """A callback with one final write."""
    iterations.batch_callback(rows)
    Row.objects.filter(pk__in=[row.pk for row in rows]).update(hits=F("hits") + 1)


def raising(keys: list[Any], error: Exception) -> None:
    """Let the callback raise for these rows."""

    def check(row: Any) -> None:
        if row.pk in keys:
            raise error

    iterations.before.append(check)


# --- batches that pass ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("batch", [1, 7, 50, 2000])
def test_lists_are_of_at_most_so_many_rows_and_have_every_row_once(
    queue: Any, rows: Any, batch: int, atomic: bool
) -> None:
    keys = rows(200)
    handle = start(_batch=batch, _shards=3, _atomic=atomic)
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1)
    assert iterations.counters == [{"passed": 200}] and iterations.finalized == [()]
    passed = [shard.rows for shard in handle.progress().shards]
    assert len(passed) == 3 and sum(passed) == 200 and max(passed) - min(passed) <= 2
    sizes = {len(each) for each in iterations.batches}
    assert 0 not in sizes and max(sizes) == min(batch, 32)
    assert all(len({iterations.shards[key] for key in each}) == 1 for each in iterations.batches)


def test_batches_grow_up_to_their_size(queue: Any, rows: Any) -> None:
    rows(1000)
    with clock.replaced(lambda: 1_000_000.0):
        start(_batch=300)
        drain(queue)
    assert [len(each) for each in iterations.batches] == [8, 32, 128, 300, 300, 232]


@pytest.mark.parametrize("atomic", [False, True])
def test_batches_last_about_as_long_as_an_interval(queue: Any, rows: Any, atomic: bool) -> None:
    rows(100)
    now = [1_000_000.0]
    iterations.before.append(lambda row: now.__setitem__(0, now[0] + 0.25))
    with clock.replaced(lambda: now[0]):
        start(_batch=300, _atomic=atomic)
        drain(queue)
    assert [len(each) for each in iterations.batches] == [8] * 12 + [4]


@pytest.mark.on_sql
def test_a_row_that_a_join_repeats_is_in_one_list_once(queue: Any, rows: Any) -> None:
    keys = rows(40)
    Child.objects.bulk_create([Child(row_id=key) for key in keys for _ in range(3)])
    walk(Row.objects.filter(children__gt=0), iterations.batch_callback, iterations.finalize, _shards=2, _batch=5)
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1) and max(map(len, iterations.batches)) <= 5


def test_a_coroutine_function_takes_lists(queue: Any, rows: Any) -> None:
    keys = rows(20)
    walk(Row.objects.all(), noting, iterations.finalize, _batch=10)
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1)


async def noting(rows: list[Any]) -> None:
    iterations.seen.extend(row.pk for row in rows)


def test_arguments_follow_the_list(queue: Any, rows: Any) -> None:
    rows(3)
    walk(Row.objects.all(), noting_arguments, finalize_with, ["a"], _shards=1, _batch=10, further=2)
    drain(queue)
    assert iterations.seen == [(3, "a", 2)]


def noting_arguments(rows: list[Any], first: str, *, further: int) -> None:
    iterations.seen.append((len(rows), first, further))


def finalize_with(first: str, *, further: int) -> None:
    pass


class Whole(MemoryRows):
    """Rows that come in one page, whatever is asked for."""

    def ask_for(self, rows: int) -> int:
        return self.page_size


def whole() -> Whole:
    return Whole(dict(enumerate("abcdefghijklmnopqrstuvwxyz" * 2)), page=100)


def noting_values(values: list[Any]) -> None:
    iterations.batches.append(values)


@pytest.mark.parametrize("source", [numbers(0, 52), lines(__file__, header=True), whole])
def test_rows_of_other_sources_come_in_lists(queue: Any, source: Any) -> None:
    walk(source, noting_values, iterations.finalize, _shards=1, _batch=9)
    drain(queue)
    assert {len(each) for each in iterations.batches[:-1]} <= {8, 9}
    made = source()
    (within,) = made.split(1).ranges
    expected = [each for page in pages(made, within) for each in page]
    assert [each for batch in iterations.batches for each in batch] == expected and iterations.finalized == [()]


def pages(made: Any, within: Any) -> Iterator[list[Any]]:
    """All pages of a range, by themselves."""
    after = None
    while True:
        keys = [(row, made.key(made.take_key(row))) for row in made.page(within, after)]
        if not keys:
            return
        yield [row for row, _ in keys]
        after = keys[-1][1]


@pytest.mark.parametrize("batch", [0, -1, 2001, True, 1.5, "500"])
def test_a_size_that_is_none_is_refused(queue: Any, batch: Any) -> None:
    with pytest.raises(OptionError, match=r"_batch is .*: it must be a whole number from 1 to 2,000, or None"):
        start(_batch=batch)


def test_an_iteration_of_a_release_without_batches_goes_on(queue: Any, rows: Any) -> None:
    keys = rows(20)
    walk(Row.objects.all(), iterations.callback, iterations.finalize)
    row = models.Iteration.objects.get()
    options = json.loads(row.options)
    del options["batch"]
    models.Iteration.objects.update(options=json.dumps(options))
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1)


# --- batches that raise -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", BAD)
def test_the_rows_that_raise_are_found_and_the_others_written_once(queue: Any, rows: Any, which: Any) -> None:
    keys = rows(30)
    bad = [keys[each] for each in which]
    raising(bad, ValueError("poison"))
    handle = walk(
        Row.objects.all(), hit_at_the_end, iterations.finalize,
        _shards=2, _batch=20, _on_error="quarantine", _max_attempts=2, _delete_marker=False,
    )  # fmt: skip
    drain(queue)
    progress = handle.progress()
    assert [row.key[0] for row in sorted(progress.quarantined, key=lambda row: row.key)] == bad
    assert all("poison" in row.error and row.attempts == 2 for row in progress.quarantined)
    assert dict(Row.objects.values_list("pk", "hits")) == {key: int(key not in bad) for key in keys}
    assert progress.counters.get("passed", 0) == progress.rows == 30 - len(bad) and iterations.finalized == [()]
    assert sum(shard.attempts for shard in progress.shards) == 0


@pytest.mark.parametrize("which", BAD)
def test_what_a_batch_wrote_is_undone_before_it_is_halved(queue: Any, rows: Any, which: Any) -> None:
    keys = rows(30)
    bad = [keys[each] for each in which]
    iterations.before.append(hit)
    raising(bad, ValueError("poison"))
    handle = start(_shards=2, _batch=20, _atomic=True, _on_error="quarantine", _max_attempts=2)
    drain(queue)
    assert sorted(row.key[0] for row in handle.progress().quarantined) == bad
    assert dict(Row.objects.values_list("pk", "hits")) == {key: int(key not in bad) for key in keys}
    assert handle.progress().rows == 30 - len(bad)


@pytest.mark.parametrize("atomic", [False, True])
def test_instances_are_read_again_before_they_are_passed_again(queue: Any, rows: Any, atomic: bool) -> None:
    keys = rows(8)
    numbers: list[int] = []

    def change(row: Any) -> None:
        if row.pk == keys[0]:
            numbers.append(row.number)
        row.number += 1000

    iterations.before.append(change)
    poison(keys[5], 1)
    start(_atomic=atomic)
    drain(queue)
    assert len(numbers) == 2 and len(set(numbers)) == 1 and iterations.times() == dict.fromkeys(keys, 1)


@pytest.mark.parametrize("atomic", [False, True])
def test_a_row_that_raised_comes_alone_in_the_next_attempts(queue: Any, rows: Any, atomic: bool) -> None:
    keys = rows(40)
    calls = poison(keys[20], 7)
    start(_atomic=atomic)
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1)
    halves = [len(each) for each in iterations.batches if keys[20] in each]
    assert halves == [32, 16, 2, 1, 1, 1, 1, 1] and len(calls) == 8


def test_a_failure_is_one_rows_and_not_its_batchs(queue: Any, rows: Any) -> None:
    keys = rows(8)
    poison(keys[6])
    handle = start(_on_error="fail", _max_attempts=3)
    drain(queue)
    progress = handle.progress()
    assert progress.state == "failed" and f"The row ({keys[6]},) of shard 0 has raised 3 times" in progress.reason
    assert sorted(iterations.seen) == keys[:6] and progress.counters == {"passed": 6}
    (shard,) = progress.shards
    assert (shard.failing, shard.attempts, shard.position) == ((keys[6],), 3, (keys[5],))
    poison(keys[6], 0)
    iterations.before.pop(0)
    assert handle.resume()
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1)


@pytest.mark.parametrize("atomic", [False, True])
def test_a_timeout_exception_hands_over_as_it_is(queue: Any, rows: Any, atomic: bool) -> None:
    keys = rows(8)
    poison(keys[3], 2, TimeoutException)
    start(_atomic=atomic, _on_error="fail", _max_attempts=1)
    drain(queue)
    assert iterations.batches == [keys] * 3 and iterations.times() == dict.fromkeys(keys, 1)
    assert models.Shard.objects.get().generation == 2


@pytest.mark.parametrize("atomic", [False, True])
def test_a_transient_fault_is_held_against_no_row_and_halves_nothing(queue: Any, rows: Any, atomic: bool) -> None:
    keys = rows(8)
    busy = [keys[5]]
    raising(busy, OperationalError("database is locked"))
    start(_atomic=atomic, _on_error="fail", _max_attempts=1)
    run_one(queue.queued()[0], queue)
    run_one(queue.queued()[0], queue)
    busy.clear()
    drain(queue)
    assert len(iterations.batches) > 1 and all(each == keys for each in iterations.batches)
    assert iterations.times() == dict.fromkeys(keys, 1)


@pytest.mark.on_sql
def test_a_commit_that_is_refused_is_traced_to_its_row(queue: Any, rows: Any) -> None:
    keys = rows(20)

    def dangle(row: Any) -> None:
        hit(row)
        if row.pk == keys[4]:
            Child.objects.create(row_id=keys[-1] + 1000)

    iterations.before.append(dangle)
    handle = start(_atomic=True, _on_error="quarantine", _max_attempts=2)
    drain(queue)
    (row,) = handle.progress().quarantined
    assert row.key == (keys[4],) and "IntegrityError" in row.error and row.attempts == 2
    assert dict(Row.objects.values_list("pk", "hits")) == {key: int(key != keys[4]) for key in keys}


@pytest.mark.on_sql
def test_a_batch_that_spoils_its_transaction_is_halved(queue: Any, rows: Any) -> None:
    keys = rows(20)

    def swallow(row: Any) -> None:
        hit(row)
        if row.pk == keys[4]:
            with suppress(IntegrityError):
                Row.objects.create(pk=keys[0])

    iterations.before.append(swallow)
    handle = start(_atomic=True, _on_error="quarantine", _max_attempts=1)
    drain(queue)
    (row,) = handle.progress().quarantined
    assert row.key == (keys[4],) and "SpoiltTransactionError" in row.error
    assert dict(Row.objects.values_list("pk", "hits")) == {key: int(key != keys[4]) for key in keys}


@pytest.mark.parametrize("atomic", [False, True])
def test_quarantined_rows_are_called_again_as_lists_of_one(queue: Any, rows: Any, atomic: bool) -> None:
    keys = rows(20)
    poison(keys[3], 1)
    poison(keys[9], 1)
    handle = start(_atomic=atomic, _batch=1, _on_error="quarantine", _max_attempts=1)
    drain(queue)
    assert handle.retry_quarantined() == 2
    drain(queue)
    assert sorted(iterations.batches[-2:]) == [[keys[3]], [keys[9]]] and handle.progress().quarantined == []
    assert handle.progress().counters == {"passed": 20} and iterations.times() == dict.fromkeys(keys, 1)


def test_what_a_batch_that_raised_has_counted_is_not_counted(queue: Any, rows: Any) -> None:
    keys = rows(20)

    def count(row: Any) -> None:
        shard = current_shard()
        assert shard is not None
        shard.count("tried")

    iterations.before.append(count)
    poison(keys[3], 2)
    start()
    drain(queue)
    assert iterations.counters == [{"tried": 20, "passed": 20}]


# --- rows that cannot be read -----------------------------------------------------------------------------------------


@pytest.mark.on_sql
@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("which", BAD)
def test_rows_that_cannot_be_read_are_set_aside(queue: Any, atomic: bool, which: Any) -> None:
    Shape.objects.bulk_create([Shape(number=each % 4, secret=each, big=each) for each in range(30)])
    keys = list(Shape.objects.order_by("pk").values_list("pk", flat=True))
    unreadable.update(which)
    poison(keys[2], 1)
    handle = walk(
        Shape.objects.all(), iterations.batch_callback, iterations.finalize,
        _shards=2, _batch=20, _on_error="quarantine", _max_attempts=2, _atomic=atomic, _delete_marker=False,
    )  # fmt: skip
    drain(queue)
    progress = handle.progress()
    assert sorted(row.key[0] for row in progress.quarantined) == [keys[each] for each in which]
    assert all("cannot be decrypted" in row.error and row.attempts == 2 for row in progress.quarantined)
    assert iterations.times() == dict.fromkeys(set(keys) - {keys[each] for each in which}, 1)


# --- deadlines --------------------------------------------------------------------------------------------------------


def deliver(queue: Any, now: list[float], seconds: float) -> None:
    """Deliver the next task with so many seconds left, which end by a kill."""
    task = queue.queued()[0]
    with suppress(Killed):
        execute(task.message.body, Delivery(task_name=task.name, deadline=now[0] + seconds))
        queue.remove(task)


@pytest.mark.parametrize("atomic", [False, True])
def test_a_batch_that_raises_too_near_the_deadline_is_not_halved_in_this_attempt(
    queue: Any, rows: Any, atomic: bool
) -> None:
    """And the next attempt does not begin with as large a batch."""
    keys, now = rows(24), [1_000_000.0]

    def slow(row: Any) -> None:
        now[0] += 50
        if row.pk == keys[7]:
            raise ValueError

    iterations.before.append(slow)
    with clock.replaced(lambda: now[0]):
        handle = start(_atomic=atomic, _on_error="quarantine", _max_attempts=2)
        deliver(queue, now, 600)
        deliver(queue, now, 600)
        (shard,) = handle.progress().shards
        assert iterations.batches == [keys[:8]]
        assert (shard.generation, shard.failing, shard.attempts, shard.position) == (1, (keys[0],), 0, None)
        for _ in range(20):
            if queue.queued():
                now[0] = max(now[0], queue.queued()[0].due or 0.0)
                deliver(queue, now, 600)
    assert iterations.batches[1:10] == [[key] for key in [*keys[:8], keys[7]]]
    assert iterations.times() == dict.fromkeys(set(keys) - {keys[7]}, 1)
    assert [row.key for row in handle.progress().quarantined] == [(keys[7],)]


def test_a_batch_that_lasts_beyond_the_deadline_is_smaller_once_it_has_stalled(queue: Any, rows: Any) -> None:
    keys, now = rows(24), [1_000_000.0]
    iterations.before.append(lambda row: now.__setitem__(0, now[0] + 100))
    began = [0.0]

    def cut_off(row: Any) -> None:
        if now[0] > began[0] + 600:
            kill()

    iterations.before.append(cut_off)
    with clock.replaced(lambda: now[0]):
        start()
        deliver(queue, now, 600)
        for _ in range(60):
            drain_stalled(queue, now, began)
        assert iterations.times() == dict.fromkeys(keys, 1)


def drain_stalled(queue: Any, now: list[float], began: list[float]) -> None:
    """Deliver once, and let the sweep find what has stalled."""
    from defer_iteration.protocol.sweeper import requeue_stalled
    from defer_iteration.tasks import all_schedulers

    for task in queue.queued():
        now[0] = max(now[0], task.due or 0.0)
        began[0] = now[0]
        with suppress(Killed):
            execute(task.message.body, Delivery(task_name=task.name, deadline=now[0] + 600))
        queue.remove(task)
    now[0] += 5000
    requeue_stalled(all_schedulers(), None)
