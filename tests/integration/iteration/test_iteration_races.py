"""What PostgreSQL's READ COMMITTED lets two connections do to each other, and what the protocol makes of it."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest
from django.db import connection, connections
from django.db.models import F
from integration.iteration.workers import Killed, finish
from testapp import iterations
from testapp.models import Row

from defer_core import clock
from defer_core.upkeep.sweep import sweep
from defer_iteration import IterationHandle
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.model.iteration import Iteration, IterationState
from defer_iteration.model.shard import KeyRange, Shard, cut
from defer_iteration.protocol.division import Division
from defer_iteration.rows import queryset
from defer_iteration.stores.base import Completion
from defer_iteration.stores.django import DjangoIterationStore

PATIENCE = 30.0
"""Seconds that anything here may take."""


@pytest.fixture
def store(races: Any, postgres_alias: str) -> DjangoIterationStore:
    return DjangoIterationStore(postgres_alias)


def running(store: DjangoIterationStore, shards: int = 2) -> list[Shard]:
    """The acquired shards of a running iteration."""
    iteration = Iteration(id="i" * 32, job=b"")
    store.create(iteration)
    made = [Shard(iteration_id="i" * 32, index=index, range=KeyRange()) for index in range(shards)]
    assert store.plan(iteration, made, total=2)
    acquired = [store.acquire("i" * 32, index, 0, due=lambda requeues: 1.0) for index in range(shards)]
    return [each[1] for each in acquired if each is not None]


def elsewhere(func: Callable[[], Any]) -> Future[Any]:
    """Call a function in a thread, and so on a connection, of its own."""
    found: Future[Any] = Future()

    def run() -> None:
        try:
            found.set_result(func())
        except BaseException as error:
            found.set_exception(error)
        finally:
            connections.close_all()

    threading.Thread(target=run, daemon=True).start()
    return found


def wait_until_blocked(alias: str) -> None:
    """Until another connection waits for a lock."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return
        time.sleep(0.01)
    raise AssertionError("no transaction waits")


def test_two_last_shards_complete_at_once(store: DjangoIterationStore) -> None:
    first, second = running(store)
    with store.transaction():
        assert store.complete(first, due=0.0) is Completion.OPEN
        other = elsewhere(lambda: store.complete(second, due=0.0))
        wait_until_blocked(store.alias)
    assert other.result(PATIENCE) is Completion.LAST
    iteration = store.get(first.iteration_id)
    assert iteration is not None and iteration.state is IterationState.FINALIZING


def test_two_attempts_at_once_have_two_fences(store: DjangoIterationStore) -> None:
    (shard,) = running(store, 1)
    with store.transaction():
        mine = store.acquire(shard.iteration_id, 0, 0, due=lambda requeues: 1.0)
        other = elsewhere(lambda: store.acquire(shard.iteration_id, 0, 0, due=lambda requeues: 1.0))
        wait_until_blocked(store.alias)
    theirs = other.result(PATIENCE)
    assert mine is not None and theirs is not None
    assert (mine[1].fence, theirs[1].fence) == (2, 3)
    assert store.checkpoint(mine[1]) is None
    assert store.checkpoint(theirs[1]) is IterationState.RUNNING


def test_an_attempt_that_waited_for_a_hand_over_has_nothing_to_do(store: DjangoIterationStore) -> None:
    (shard,) = running(store, 1)
    with store.transaction():
        assert store.hand_over(shard) is IterationState.RUNNING
        other = elsewhere(lambda: store.acquire(shard.iteration_id, 0, 0, due=lambda requeues: 1.0))
        wait_until_blocked(store.alias)
    assert other.result(PATIENCE) is None


def test_a_checkpoint_that_waited_for_a_resume_is_lost(store: DjangoIterationStore) -> None:
    (shard,) = running(store, 1)
    with store.transaction():
        (renewed,) = store.renew(shard.iteration_id, due=1.0)
        other = elsewhere(lambda: store.hand_over(shard))
        wait_until_blocked(store.alias)
    assert renewed.generation == 1
    assert other.result(PATIENCE) is None


def test_two_plans_at_once_write_one_set(store: DjangoIterationStore) -> None:
    iteration = Iteration(id="p" * 32, job=b"")
    store.create(iteration)
    shards = [Shard(iteration_id="p" * 32, index=index, range=KeyRange()) for index in range(3)]
    with store.transaction():
        assert store.plan(iteration, shards, total=3)
        other = elsewhere(lambda: store.plan(iteration, shards[:2], total=2))
        wait_until_blocked(store.alias)
    assert other.result(PATIENCE) is False
    assert len(store.shards("p" * 32)) == 3


def test_a_pause_and_the_last_completion_cannot_miss_each_other(store: DjangoIterationStore) -> None:
    (shard,) = running(store, 1)
    with store.transaction():
        assert store.control(shard.iteration_id, IterationState.PAUSED, when=(IterationState.RUNNING,))
        other = elsewhere(lambda: store.complete(shard, due=0.0))
        wait_until_blocked(store.alias)
    assert other.result(PATIENCE) is Completion.OPEN
    assert store.control(shard.iteration_id, IterationState.RUNNING, when=(IterationState.PAUSED,))
    iteration = store.get(shard.iteration_id)
    assert iteration is not None and iteration.state is IterationState.FINALIZING


def test_two_sweeps_wake_a_shard_once(store: DjangoIterationStore) -> None:
    running(store, 1)
    (stalled,) = store.stalled(now=2.0, limit=10)
    with store.transaction():
        assert store.requeue(stalled, due=9.0)
        other = elsewhere(lambda: store.requeue(stalled, due=9.0))
        wait_until_blocked(store.alias)
    assert other.result(PATIENCE) is None


# --- division ---------------------------------------------------------------------------------------------------------


def divided(store: DjangoIterationStore, shard: Shard, *bounds: int) -> list[Shard] | None:
    """Divide the whole range of a shard."""
    return store.divide(shard, cut(shard.range, [(bound,) for bound in bounds]), due=0.0)


def with_two_done(store: DjangoIterationStore) -> tuple[Shard, Shard]:
    """Two open shards, beside two that are done; of these, the one that is written last is taken first."""
    first, second, *others = running(store, 4)
    for due, shard in zip((9.0, 1.0), others, strict=True):
        assert store.complete(replace(shard, due=due), due=0.0) is Completion.OPEN
    return first, second


def test_two_that_divide_do_not_wait_for_each_others_shards(store: DjangoIterationStore) -> None:
    """Each takes both shards that are done, in another order: without the lock of the iteration, that is a deadlock."""
    first, second = with_two_done(store)
    with store.transaction():
        kept = divided(store, first, 5)
        assert kept is not None and [each.index for each in kept] == [0, 3]
        other = elsewhere(lambda: divided(store, second, 3, 6))
        wait_until_blocked(store.alias)
        again = divided(store, kept[0], 2)
        assert again is not None and [each.index for each in again] == [0, 2]
    assert other.result(PATIENCE) == [second]
    assert [shard.done for shard in store.shards(first.iteration_id)] == [False] * 4


def test_one_that_waited_takes_what_the_other_has_left(store: DjangoIterationStore) -> None:
    first, second = with_two_done(store)
    with store.transaction():
        assert divided(store, first, 5)
        other = elsewhere(lambda: divided(store, second, 3, 6))
        wait_until_blocked(store.alias)
    parts = other.result(PATIENCE)
    assert [each.index for each in parts] == [1, 2]
    assert [each.range for each in parts] == [KeyRange(upper=(3,)), KeyRange(lower=(3,))]


def test_one_that_waited_for_a_resume_divides_nothing(store: DjangoIterationStore) -> None:
    first, _ = with_two_done(store)
    for to, when in ((IterationState.PAUSED, IterationState.RUNNING), (IterationState.RUNNING, IterationState.PAUSED)):
        with store.transaction():
            assert store.control(first.iteration_id, to, when=(when,))
            if to is IterationState.RUNNING:
                store.renew(first.iteration_id, due=1.0)
                other = elsewhere(lambda: divided(store, first, 5))
                wait_until_blocked(store.alias)
    assert other.result(PATIENCE) is None
    assert [shard.done for shard in store.shards(first.iteration_id)] == [False, False, True, True]


# --- all of it at once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [None, 25])
@pytest.mark.parametrize("atomic", [True, False])
def test_workers_that_are_killed_and_tasks_delivered_twice(
    races: Any, postgres_alias: str, monkeypatch: pytest.MonkeyPatch, atomic: bool, batch: int | None
) -> None:
    """And in batches, two rows that always raise."""
    monkeypatch.setattr(queryset, "PAGE", 25)
    for name in ("timing.CHECKPOINT_EVERY", "batches.CHECKPOINT_EVERY", "division.CHECKPOINT_EVERY", "division.WORTH"):
        monkeypatch.setattr(f"defer_iteration.protocol.{name}", 0.05)
    given: list[int] = []
    note = Division.given
    monkeypatch.setattr(Division, "given", lambda self, parts: (given.append(parts), note(self, parts)))
    rows = Row.objects.using(postgres_alias)
    rows.bulk_create([Row() for _ in range(600)])
    keys = list(rows.values_list("pk", flat=True))
    dice = random.Random(7)
    kills: list[int] = []
    iterations.before.append(lambda row: rows.filter(pk=row.pk).update(hits=F("hits") + 1))

    def maybe_die(row: Any) -> None:
        if len(kills) < 20 and dice.random() < 0.03:
            kills.append(row.pk)
            raise Killed

    iterations.before.append(maybe_die)
    iterations.before.append(lambda row: time.sleep(0.02 if row.pk > keys[500] else 0.0))
    bad = {keys[100], keys[350]} if batch else set()

    def poison(row: Any) -> None:
        if row.pk in bad:
            raise ValueError(row.pk)

    iterations.before.append(poison)
    handle = walk(
        Row.objects.using(postgres_alias), iterations.batch_callback if batch else iterations.callback,
        iterations.finalize, _shards=6, _atomic=False, _using=postgres_alias, _delete_marker=False, _batch=batch,
        _on_error="quarantine", _max_attempts=2,
    )  # fmt: skip
    if atomic:  # the rows are written by the connection that the iteration is on, whatever the router says
        make_atomic(handle)
    finish(races, seconds=4 * PATIENCE)
    later = clock.now() + 10_000
    with clock.replaced(lambda: later):
        assert sweep().counts["requeued"] == 0
    assert handle.progress().state is IterationState.DONE
    assert len(kills) == 20 and set(iterations.finalized) == {()}
    assert {row.key[0] for row in handle.progress().quarantined} == bad
    hits = Counter(rows.exclude(pk__in=bad).values_list("hits", flat=True))
    assert sum(hits.values()) == len(keys) - len(bad) and min(hits) == 1
    assert all(counted == {"passed": len(keys) - len(bad)} for counted in iterations.counters)
    assert sum(given) > 0
    if atomic:
        assert hits == {1: len(keys) - len(bad)}
        assert set(rows.filter(pk__in=bad).values_list("hits", flat=True)) <= {0}


def make_atomic(handle: IterationHandle) -> None:
    """Turn `_atomic` on in the iteration's row."""
    from defer_iteration import models

    found = models.Iteration.objects.using(handle.alias).filter(pk=handle.id)
    found.update(options=found.get().options.replace('"atomic": false', '"atomic": true'))


def test_the_default_connection_is_not_what_is_tested(store: DjangoIterationStore) -> None:
    assert connections[store.alias].vendor == "postgresql"
    assert connection.alias != store.alias
