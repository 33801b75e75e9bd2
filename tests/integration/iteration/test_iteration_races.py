"""What PostgreSQL's READ COMMITTED lets two connections do to each other, and what the protocol makes of it."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from django.db import connection, connections
from django.db.models import F
from integration.iteration.workers import Killed, finish
from testapp import iterations
from testapp.models import Row

from defer_core import clock
from defer_core.sweep import sweep
from defer_iteration import IterationHandle, queryset_rows
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.base import Completion
from defer_iteration.iteration import Iteration, IterationState
from defer_iteration.shard import KeyRange, Shard
from defer_iteration.store_django import DjangoIterationStore

PATIENCE = 30.0
"""Seconds that anything here may take."""


@pytest.fixture
def store(races: Any, postgres_alias: str) -> DjangoIterationStore:
    return DjangoIterationStore(postgres_alias)


def running(store: DjangoIterationStore, shards: int = 2) -> list[Shard]:
    """The claimed shards of a running iteration."""
    iteration = Iteration(id="i" * 32, job=b"")
    store.create(iteration)
    made = [Shard(iteration_id="i" * 32, index=index, range=KeyRange()) for index in range(shards)]
    assert store.plan(iteration, made, total=2)
    claims = [store.claim("i" * 32, index, 0, due=lambda wakes: 1.0) for index in range(shards)]
    return [claim[1] for claim in claims if claim is not None]


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
    raise AssertionError("nobody waits")


def test_two_last_shards_complete_at_once(store: DjangoIterationStore) -> None:
    first, second = running(store)
    with store.transaction():
        assert store.complete(first, due=0.0) is Completion.OPEN
        other = elsewhere(lambda: store.complete(second, due=0.0))
        wait_until_blocked(store.alias)
    assert other.result(PATIENCE) is Completion.LAST
    iteration = store.get(first.iteration_id)
    assert iteration is not None and iteration.state is IterationState.FINALIZING


def test_two_claims_at_once_have_two_fences(store: DjangoIterationStore) -> None:
    (shard,) = running(store, 1)
    with store.transaction():
        mine = store.claim(shard.iteration_id, 0, 0, due=lambda wakes: 1.0)
        other = elsewhere(lambda: store.claim(shard.iteration_id, 0, 0, due=lambda wakes: 1.0))
        wait_until_blocked(store.alias)
    theirs = other.result(PATIENCE)
    assert mine is not None and theirs is not None
    assert (mine[1].fence, theirs[1].fence) == (2, 3)
    assert store.checkpoint(mine[1]) is None
    assert store.checkpoint(theirs[1]) is IterationState.RUNNING


def test_a_claim_that_waited_for_a_hand_over_has_nothing_to_do(store: DjangoIterationStore) -> None:
    (shard,) = running(store, 1)
    with store.transaction():
        assert store.hand_over(shard) is IterationState.RUNNING
        other = elsewhere(lambda: store.claim(shard.iteration_id, 0, 0, due=lambda wakes: 1.0))
        wait_until_blocked(store.alias)
    assert other.result(PATIENCE) is None


def test_a_checkpoint_that_waited_for_a_resume_is_lost(store: DjangoIterationStore) -> None:
    (shard,) = running(store, 1)
    with store.transaction():
        (reopened,) = store.reopen(shard.iteration_id, due=1.0)
        other = elsewhere(lambda: store.hand_over(shard))
        wait_until_blocked(store.alias)
    assert reopened.generation == 1
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
        assert store.wake(stalled, due=9.0)
        other = elsewhere(lambda: store.wake(stalled, due=9.0))
        wait_until_blocked(store.alias)
    assert other.result(PATIENCE) is None


# --- all of it at once ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("atomic", [True, False])
def test_workers_that_are_killed_and_tasks_delivered_twice(
    races: Any, postgres_alias: str, monkeypatch: pytest.MonkeyPatch, atomic: bool
) -> None:
    monkeypatch.setattr(queryset_rows, "PAGE", 25)
    monkeypatch.setattr("defer_iteration.pace.CHECKPOINT_EVERY", 0.05)
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
    handle = walk(
        Row.objects.using(postgres_alias), iterations.callback, iterations.finalize,
        _shards=6, _atomic=False, _using=postgres_alias, _delete_marker=False,
    )  # fmt: skip
    if atomic:  # the rows are written by the connection that the iteration is on, whatever the router says
        make_atomic(handle)
    finish(races, seconds=4 * PATIENCE)
    later = clock.now() + 10_000
    with clock.replaced(lambda: later):
        assert sweep().counts["woken"] == 0
    assert handle.progress().state is IterationState.DONE
    assert len(kills) == 20 and set(iterations.finalized) == {()}
    hits = Counter(rows.values_list("hits", flat=True))
    assert sum(hits.values()) == len(keys) and min(hits) == 1
    assert all(counted == {"passed": 600} for counted in iterations.counters)
    if atomic:
        assert hits == {1: 600}


def make_atomic(handle: IterationHandle) -> None:
    """Turn `_atomic` on in the iteration's row."""
    from defer_iteration import models

    found = models.Iteration.objects.using(handle.alias).filter(pk=handle.id)
    found.update(options=found.get().options.replace('"atomic": false', '"atomic": true'))


def test_the_default_connection_is_not_what_is_tested(store: DjangoIterationStore) -> None:
    assert connections[store.alias].vendor == "postgresql"
    assert connection.alias != store.alias
