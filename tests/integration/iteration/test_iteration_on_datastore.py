"""Iterations where Datastore is the database, by `gcloudc`: the protocol on Google's Firestore emulator in Datastore
mode, Datastore's own sample of keys on its Datastore emulator."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any
from unittest import mock

import pytest
import services
from django.db import OperationalError, connections
from integration.iteration.workers import Killed, finish
from testapp import iterations
from testapp.models import Row

from defer_core import clock
from defer_core.delivery import Delivery
from defer_core.record import new_id
from defer_core.run.execute import Outcome, execute
from defer_core.testing import drain
from defer_core.upkeep.sweep import sweep
from defer_iteration import IterationHandle
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.errors import FenceLostError
from defer_iteration.model.iteration import Iteration, IterationState
from defer_iteration.model.shard import KeyRange, Shard
from defer_iteration.rows.sources import rows_over
from defer_iteration.stores import routing
from defer_iteration.stores.base import Completion

pytestmark = [
    pytest.mark.gcloudc,
    pytest.mark.skipif(find_spec("gcloudc") is None, reason="gcloudc is not installed: it needs Django < 6"),
]
ALIAS = "protocol"


def make(count: int, /, alias: str = ALIAS, **values: Any) -> list[int]:
    """Rows with spread keys, written past `gcloudc`, which asks after each; returns the keys in order."""
    from google.cloud import datastore

    connections[alias].ensure_connection()
    client = connections[alias].connection._client
    dice = random.Random(count)
    keys = sorted(dice.sample(range(1, 2**53), count))
    blank = {field.column: field.get_default() for field in Row._meta.fields if not field.primary_key}
    for start in range(0, count, 400):
        entities = []
        for at, key in enumerate(keys[start : start + 400], start):
            entity = datastore.Entity(client.key(Row._meta.db_table, key))
            given = {name: value(at) if callable(value) else value for name, value in values.items()}
            entity.update({**blank, "number": at, **given})
            entities.append(entity)
        client.put_multi(entities)
    return keys


def rows(alias: str = ALIAS) -> Any:
    return Row.objects.using(alias)


def start(source: Any = None, **options: Any) -> IterationHandle:
    return walk(rows().all() if source is None else source, iterations.callback, iterations.finalize, **options)


def run(queue: Any, task: Any) -> None:
    """A delivery that the queue gets an answer to."""
    assert execute(task.message.body, Delivery(task_name=task.name)) is Outcome.DONE
    queue.remove(task)


# --- the protocol -----------------------------------------------------------------------------------------------------


def test_every_row_is_passed_and_finalize_runs_once(firestore_queue: Any) -> None:
    keys = make(60)
    start(_shards=4)
    drain(firestore_queue)
    assert iterations.times() == dict.fromkeys(keys, 1)
    assert iterations.finalized == [()] and iterations.counters == [{"passed": 60}]
    assert routing.store_on(ALIAS).list() == []


def test_no_rows_finalize_too(firestore_queue: Any) -> None:
    start()
    drain(firestore_queue)
    assert iterations.finalized == [()]


def test_workers_that_are_killed_and_tasks_delivered_twice(
    firestore_queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("defer_iteration.rows.datastore.LIMIT", 15)
    monkeypatch.setattr("defer_iteration.protocol.timing.CHECKPOINT_EVERY", 0.1)
    keys, dice, kills = make(200), random.Random(7), []

    def maybe_die(row: Any) -> None:
        if len(kills) < 8 and dice.random() < 0.05:
            kills.append(row.pk)
            raise Killed

    iterations.before.append(maybe_die)
    handle = start(_shards=5, _delete_marker=False)
    finish(firestore_queue, seconds=240, lost=(Killed, OperationalError))  # on a slow machine, all of six tries
    later = clock.now() + 10_000
    with clock.replaced(lambda: later):
        assert sweep().counts["requeued"] == 0
    assert handle.progress().state is IterationState.DONE
    assert len(kills) == 8 and set(iterations.seen) == set(keys)
    assert set(iterations.finalized) == {()}
    assert all(counted == {"passed": 200} for counted in iterations.counters)


def test_shards_that_complete_at_once_abort_each_other_and_one_is_the_last(firestore_queue: Any) -> None:
    store, number = routing.store_on(ALIAS), 4
    iteration = Iteration(id=new_id(), job=b"")
    store.create(iteration)
    shards = [Shard(iteration_id=iteration.id, index=index, range=KeyRange()) for index in range(number)]
    assert store.plan(iteration, shards, total=number)
    acquired = [store.acquire(iteration.id, index, 0, due=lambda requeues: 1.0) for index in range(number)]
    together = threading.Barrier(number)

    def complete(shard: Shard) -> Completion:
        first = []

        def work() -> Completion:
            if not first:  # every transaction has begun before any commits
                first.append(store.get(iteration.id))
                together.wait(30)
            return store.complete(shard, due=1.0)

        try:
            return store.transact(work)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(number) as pool:
        ends = list(pool.map(complete, [each[1] for each in acquired if each is not None]))
    assert Counter(ends) == {Completion.OPEN: number - 1, Completion.LAST: 1}
    found = store.get(iteration.id)
    assert found is not None and found.state is IterationState.FINALIZING


def test_pause_resume_and_cancel(firestore_queue: Any) -> None:
    keys = make(30)
    handle = start(_shards=2, _delete_marker=False)
    run(firestore_queue, firestore_queue.queued()[0])
    assert handle.pause() and not handle.pause()
    drain(firestore_queue)
    assert iterations.seen == [] and handle.progress().state is IterationState.PAUSED
    assert handle.resume()
    drain(firestore_queue)
    assert iterations.times() == dict.fromkeys(keys, 1) and iterations.finalized == [()]
    other = start()
    assert other.cancel()
    drain(firestore_queue)
    assert other.progress().state is IterationState.CANCELLED and len(iterations.seen) == 30


def test_what_a_queue_gives_up_on_is_requeued(firestore_queue: Any) -> None:
    keys = make(10)
    now = clock.now()
    start(_shards=2)
    for which in ("plan", "0-", "finalize"):
        while lost := [task for task in firestore_queue.queued() if task.name.partition("-")[2].startswith(which)]:
            firestore_queue.remove(lost[0])
            now += 4000
            with clock.replaced(lambda at=now: at):
                assert sweep().counts["requeued"] >= 1
            break
        with clock.replaced(lambda at=now: at):
            run(firestore_queue, firestore_queue.queued()[0])
    with clock.replaced(lambda: now):
        drain(firestore_queue)
    assert set(iterations.seen) == set(keys) and iterations.finalized == [()]


def test_quarantined_rows_are_kept_and_run_again(firestore_queue: Any) -> None:
    keys = make(10)
    bad = keys[3]

    def fail(row: Any) -> None:
        if row.pk == bad:
            raise ValueError("poison")

    iterations.before.append(fail)
    handle = start(_shards=2, _on_error="quarantine", _max_attempts=2)
    drain(firestore_queue)
    progress = handle.progress()
    assert progress.state is IterationState.DONE and sorted(iterations.seen) == sorted(set(keys) - {bad})
    assert [(row.key, row.attempts) for row in progress.quarantined] == [((bad,), 2)]
    assert handle.retry_quarantined() == 1
    drain(firestore_queue)
    assert handle.progress().quarantined[0].attempts == 3
    iterations.before.clear()
    handle.retry_quarantined()
    drain(firestore_queue)
    assert bad in iterations.seen and routing.store_on(ALIAS).get(handle.id) is None


# --- what one commit takes --------------------------------------------------------------------------------------------


@contextmanager
def commits() -> Iterator[list[int]]:
    """The mutations of each commit, for the emulators take any number."""
    from gcloudc.db.backends.common.base.connection import Connection

    sizes: list[int] = []
    commit = Connection.commit

    def counted(self: Any) -> Any:
        sizes.append(len(self._staged_writes))
        return commit(self)

    with mock.patch.object(Connection, "commit", counted):
        yield sizes


def test_a_thousand_shards_keep_within_500_mutations_a_commit(firestore_queue: Any) -> None:
    make(1000)
    with commits() as sizes:
        handle = start(_shards=1000)
        run(firestore_queue, firestore_queue.queued()[0])
        assert len(handle.progress().shards) == 1000
        while fan_outs := [task for task in firestore_queue.queued() if "-fan-out-" in task.name]:
            run(firestore_queue, fan_outs[0])
        assert len(firestore_queue.queued()) == 1000
        assert all(shard.generation == 1 for shard in handle.progress().shards)
        run(firestore_queue, firestore_queue.queued()[0])
        assert handle.pause() and handle.resume()
        routing.store_on(ALIAS).delete(handle.id)
    assert 200 < max(sizes) <= 500
    assert len(iterations.seen) == 1 and routing.store_on(ALIAS).shards(handle.id) == []


def test_many_shards_are_started_by_pages_and_end(firestore_queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("defer_iteration.stores.datastore.PAGE", 4)
    monkeypatch.setattr("defer_iteration.stores.datastore.DatastoreIterationStore.page", 4)
    keys = make(30)
    handle = start(_shards=11)
    run(firestore_queue, firestore_queue.queued()[0])
    fan_out = next(task for task in firestore_queue.queued() if "-fan-out-" in task.name)
    run(firestore_queue, fan_out)
    assert execute(fan_out.message.body, Delivery(task_name=fan_out.name)) is Outcome.DONE  # delivered again
    assert handle.pause() and handle.resume()
    drain(firestore_queue)
    assert set(iterations.seen) == set(keys) and iterations.finalized == [()]
    assert iterations.counters == [{"passed": 30}] and routing.store_on(ALIAS).list() == []


def test_of_two_plans_of_many_shards_the_older_writes_nothing_more(
    firestore_queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("defer_iteration.stores.datastore.PAGE", 4)
    store = routing.store_on(ALIAS)
    iteration = Iteration(id=new_id(), job=b"")
    store.create(iteration)
    old = store.acquire_whole(iteration.id, IterationState.NEW, due=lambda requeues: 1.0)
    assert old is not None
    shards = [Shard(iteration_id=iteration.id, index=index, range=KeyRange(lower=(index,))) for index in range(9)]
    assert store.prepare(old, shards) == ()
    new = store.acquire_whole(iteration.id, IterationState.NEW, due=lambda requeues: 1.0)
    assert new is not None
    with pytest.raises(FenceLostError):
        store.prepare(old, shards)
    assert store.prepare(new, shards[:6]) == ()
    assert not store.plan(old, (), total=9) and store.plan(new, (), total=6)
    assert store.shards(iteration.id) == shards[:6]


# --- rows -------------------------------------------------------------------------------------------------------------


def test_the_datastores_own_sample_divides_the_keys(datastore_queue: Any) -> None:
    make(3000, "scatter")
    with mock.patch("defer_iteration.rows.datastore.DatastoreRows._split_walked", side_effect=AssertionError):
        found = rows_over(rows("scatter").all()).split(2)
    assert found.total is None
    first, second = found.ranges
    number = rows("scatter").filter(pk__lt=first.upper[0]).count()
    assert 3000 * 0.3 < number < 3000 * 0.7
    assert second.closed and second.upper == (rows("scatter").order_by("-pk").first().pk,)


def test_djangaes_key_ranges_are_by_the_sample_too(datastore_queue: Any) -> None:
    from defer_djangae.processing import datastore_key_ranges

    keys = make(2000, "scatter")
    ranges = datastore_key_ranges(rows("scatter").all(), 4)
    bounds = [keys.index(start) for start, _ in ranges[1:]]
    assert [start for start, _ in ranges] == [None, *(keys[bound] for bound in bounds)] and ranges[-1][1] is None
    assert all(abs(bound - share) < 250 for bound, share in zip(bounds, (500, 1000, 1500), strict=True))


def test_an_iteration_by_the_sample_passes_every_row(datastore_queue: Any) -> None:
    keys = make(3000, "scatter")
    start(rows("scatter").all(), _shards=2)
    drain(datastore_queue)
    assert iterations.times() == dict.fromkeys(keys, 1)


def test_without_a_sample_one_walk_divides_the_keys_evenly(firestore_queue: Any) -> None:
    keys = make(500)
    with mock.patch("defer_iteration.rows.datastore.WALK", 60):
        found = rows_over(rows().all()).split(4)
    assert found.total == 500
    bounds = [keys.index(each.lower[0]) for each in found.ranges[1:]]
    assert all(abs(bound - share) <= 4 for bound, share in zip(bounds, (125, 250, 375), strict=True))
    assert found.ranges[-1].upper == (keys[-1],)


def test_fewer_rows_than_shards(firestore_queue: Any) -> None:
    keys = make(3)
    start(_shards=8)
    drain(firestore_queue)
    assert iterations.times() == dict.fromkeys(keys, 1)


@pytest.mark.parametrize("limit", [3, 50])
def test_the_order_of_a_field_with_repeated_values_and_nulls(
    firestore_queue: Any, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """Pages smaller than the rows of one value, and pages larger."""
    monkeypatch.setattr("defer_iteration.rows.datastore.LIMIT", limit)
    keys = make(60, rank=lambda at: None if at % 10 == 0 else at % 4)
    handle = start(_shards=3, order_field="rank", _delete_marker=False)
    drain(firestore_queue)
    assert iterations.times() == dict.fromkeys(keys, 1)
    ranges = [shard.range for shard in handle.progress().shards]
    assert [each.nulls for each in ranges].count(True) == 1 and len(ranges) >= 3


def test_a_shard_resumes_within_rows_of_one_value(firestore_queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = make(20, number=5)
    at = [1_000_000.0]
    with clock.replaced(lambda: at[0]):
        start(_shards=2, order_field="number")
        run(firestore_queue, firestore_queue.queued()[0])
        iterations.before.append(lambda row: at.__setitem__(0, at[0] + 70.0))  # eight rows an attempt
        drain(firestore_queue)
    assert iterations.times() == dict.fromkeys(keys, 1) and iterations.seen == keys


# --- division ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"_atomic": True}, {"order_field": "number"}, {"order_field": "rank"}])
def test_a_shard_that_lags_gives_parts_to_shards_that_are_done(
    firestore_queue: Any, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setattr("defer_iteration.rows.datastore.LIMIT", 5)
    keys = make(60, number=lambda at: at // 3, rank=lambda at: None if at % 10 == 0 else at % 7)
    now = [1_000_000.0]
    iterations.before.append(lambda row: now.__setitem__(0, now[0] + 1.0))
    with clock.replaced(lambda: now[0]):
        handle = start(_shards=3, _delete_marker=False, **options)
        drain(firestore_queue)
    assert set(iterations.seen) == set(keys) and len(iterations.finalized) == 1
    if "_atomic" not in options:  # whose pages a conflict begins again
        assert iterations.times() == dict.fromkeys(keys, 1)
    progress = handle.progress()
    assert progress.rows == 60 and progress.counters == {"passed": 60}
    assert max(shard.generation for shard in progress.shards) > 0


def test_no_other_row_waits_for_one_that_raises(firestore_queue: Any) -> None:
    keys = make(20, number=lambda at: at // 2)
    others: list[set[int]] = []

    def poison(row: Any) -> None:
        if row.pk == keys[10]:
            others.append(set(iterations.seen))
            if len(others) < 4:
                raise ValueError

    iterations.before.append(poison)
    start(_shards=2, order_field="number")
    while firestore_queue.queued():
        run(firestore_queue, min(firestore_queue.queued(), key=lambda task: task.due))
    assert iterations.times() == dict.fromkeys(keys, 1)
    assert others[1] == {*keys} - {keys[10], keys[11]}  # of which one has the same value


@pytest.mark.parametrize("order", ["pk", "number", "rank"])
def test_what_is_left_is_counted_and_divided_if_it_is_little(
    firestore_queue: Any, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    monkeypatch.setattr("defer_iteration.rows.datastore.LIMIT", 4)
    make(30, number=lambda at: at // 3, rank=lambda at: None if at % 3 else at % 4)
    found = rows_over(rows().all(), order)
    for within in found.split(1).ranges:
        passed = [(row.pk, found.key(found.take_key(row))) for row in page_of(found, within, None)]
        for at, (_, after) in enumerate(passed):
            left = [pk for pk, _ in passed[at + 1 :]]
            assert found.count(within, after) == len(left)
            parts = [*found.divide(within, after, 3, len(left)), *found.divide_at(within, after)]
            lists = [[row.pk for row in page_of(found, part, None)] for part in parts]
            first = next(number for number, part in enumerate(parts[1:], 1) if part.lower == within.lower)
            for several in (lists[:first], lists[first:]):
                assert [pk for each in several for pk in each] == [pk for pk, _ in passed]
                assert after_in(passed, several[0]) >= at  # what was passed is not given away
    monkeypatch.setattr("defer_iteration.rows.datastore.FEW", 5)
    assert found.count(KeyRange(), None) is None


def after_in(passed: list[Any], first: list[int]) -> int:
    """The place of the last row of a part."""
    return [pk for pk, _ in passed].index(first[-1])


def page_of(found: Any, within: KeyRange, after: Any) -> Iterator[Any]:
    """All rows of a range, a page after another."""
    while True:
        found.ask_for(4)
        last = None
        for row in found.page(within, after):
            last = row
            yield row
        if last is None:
            return
        after = found.key(found.take_key(last))


def test_a_filter_on_the_field_that_orders(firestore_queue: Any) -> None:
    keys = make(40)
    start(rows().filter(number__gte=10), _shards=3, order_field="number")
    drain(firestore_queue)
    assert iterations.times() == dict.fromkeys(keys[10:], 1)


def test_a_filter_that_datastore_cannot_combine_is_held_with_the_remedy(firestore_queue: Any) -> None:
    make(5)
    handle = start(rows().filter(number__gte=2))
    drain(firestore_queue)
    progress = handle.progress()
    assert progress.state is IterationState.HELD
    assert "give as order_field the field that the queryset compares" in progress.reason
    assert iterations.seen == [] and iterations.finalized == []


def test_key_ranges_of_the_callers_own(firestore_queue: Any) -> None:
    keys = make(40)
    start(order_field="number", key_ranges_getter=halves)
    drain(firestore_queue)
    assert iterations.times() == dict.fromkeys(keys, 1)


def halves(queryset: Any, shards: int) -> list[tuple[int | None, int | None]]:
    """A key_ranges_getter with open ends."""
    return [(None, 20), (20, None)]


def test_the_emulators_are_what_is_tested(firestore_queue: Any) -> None:
    assert "DATASTORE_EMULATOR_HOST" in services.os.environ
    assert type(routing.store_on(ALIAS)).__name__ == "DatastoreIterationStore"
