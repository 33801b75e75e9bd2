"""Deliberate faults: each takes one rule away, and the simulator must notice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from typing import Any
from unittest import mock

from defer_core import dead, sending
from defer_core.record import TaskRecord
from defer_core.stores.memory import MemoryStore, _Transaction
from defer_iteration import attempt, finalize, job, rules, shard_run
from defer_iteration.base import Completion
from defer_iteration.errors import FenceLostError
from defer_iteration.iteration import IterationState
from defer_iteration.shard import Shard
from defer_iteration.store_memory import (
    _ITERATIONS,
    _SHARDS,
    MemoryIterationStore,
    _shard_key,
)

Mutant = Callable[[], AbstractContextManager[Any]]


@contextmanager
def delete_before_send() -> Iterator[None]:
    """The record goes before the queue has the task."""
    send = sending.send

    def mutated(record: TaskRecord, store: Any, config: Any) -> Any:
        if not record.is_claim:
            store.delete([record.id])
        return send(record, store, config)

    with mock.patch.object(sending, "send", mutated):
        yield


@contextmanager
def sweep_without_name() -> Iterator[None]:
    """The sweep lets the queue choose a name, so nothing stops a second send."""
    send = sending.send

    def mutated(record: TaskRecord, store: Any, config: Any) -> Any:
        if record.lease:
            record = replace(record, routing=replace(record.routing, name=None))
        return send(record, store, config)

    with mock.patch.object(sending, "send", mutated):
        yield


@contextmanager
def mark_as_upsert() -> Iterator[None]:
    """`mark` makes the record that it does not find."""
    mark = MemoryStore.mark

    def mutated(self: MemoryStore, record_id: str, *, lease: str, new_lease: str = "", **changes: Any) -> bool:
        if self.get(record_id) is None:
            self.put([TaskRecord(id=record_id, envelope=b"", lease=new_lease, **changes)])
            return True
        return mark(self, record_id, lease=lease, new_lease=new_lease, **changes)

    with mock.patch.object(MemoryStore, "mark", mutated):
        yield


@contextmanager
def carried_delete_of_any_state() -> Iterator[None]:
    """A carried delete erases a dead letter, too."""

    def mutated(self: MemoryStore, records: Sequence[TaskRecord], forget: Sequence[str] = ()) -> None:
        self._do(_Transaction(writes={**dict.fromkeys(forget), **{record.id: record for record in records}}))

    with mock.patch.object(MemoryStore, "put", mutated):
        yield


@contextmanager
def rerun_under_the_old_name() -> Iterator[None]:
    """A re-run keeps its name, which the queue has seen."""
    with mock.patch.object(dead, "_routing_again", lambda record, config: replace(record.routing, eta=None)):
        yield


@contextmanager
def stale_lease_that_marks() -> Iterator[None]:
    """`mark` does not ask who holds the record."""
    mark = MemoryStore.mark

    def mutated(self: MemoryStore, record_id: str, *, lease: str, new_lease: str = "", **changes: Any) -> bool:
        record = self.get(record_id)
        return record is not None and mark(self, record_id, lease=record.lease, new_lease=new_lease, **changes)

    with mock.patch.object(MemoryStore, "mark", mutated):
        yield


OF_TASKS: dict[str, Mutant] = {
    each.__name__: each
    for each in (
        delete_before_send,
        sweep_without_name,
        mark_as_upsert,
        carried_delete_of_any_state,
        rerun_under_the_old_name,
        stale_lease_that_marks,
    )
}


# --- iterations -------------------------------------------------------------------------------------------------------


@contextmanager
def no_fence() -> Iterator[None]:
    """A checkpoint does not ask whether a newer attempt has taken over."""

    def mutated(now: Shard, attempt: Shard) -> bool:
        return not now.done and now.generation == attempt.generation

    with mock.patch.object(rules, "may_write", mutated):
        yield


@contextmanager
def no_generation() -> Iterator[None]:
    """A task of an older generation works on the shard, too, and hands over to the same next one."""
    claim = MemoryIterationStore.claim

    def mutated(self: MemoryIterationStore, iteration_id: str, index: int, generation: int, **kwargs: Any) -> Any:
        shard = self.tasks.rows(_SHARDS).get(_shard_key(iteration_id, index))
        current = generation if shard is None else shard.generation
        return claim(self, iteration_id, index, current, **kwargs)

    with mock.patch.object(MemoryIterationStore, "claim", mutated):
        yield


@contextmanager
def count_instead_of_set() -> Iterator[None]:
    """Completion counts the tasks that ended, however often one shard's does."""
    ended: Counter[str] = Counter()
    claim = MemoryIterationStore.claim

    def claimed(self: MemoryIterationStore, iteration_id: str, index: int, generation: int, **kwargs: Any) -> Any:
        shard = self.tasks.rows(_SHARDS).get(_shard_key(iteration_id, index))
        if shard is not None and shard.done:
            self.write(replace(shard, done=False))
        return claim(self, iteration_id, index, generation, **kwargs)

    def complete(self: MemoryIterationStore, shard: Shard, quarantine: Sequence[Any] = (), *, due: float) -> Completion:
        with self.transaction():
            iteration = self.held_iteration(shard.iteration_id)
            if iteration is None or not self._has(shard):
                return Completion.LOST
            self._save(replace(shard, done=True), quarantine)
            ended[iteration.id] += 1
            if iteration.state is not IterationState.RUNNING or ended[iteration.id] < len(self.shards(iteration.id)):
                return Completion.OPEN
            for each in self.shards(iteration.id):
                self.write(replace(each, done=True))
            self.write(rules.finalizing(iteration, self.shards(iteration.id), due))
            return Completion.LAST

    with mock.patch.multiple(MemoryIterationStore, claim=claimed, complete=complete):
        yield


@contextmanager
def lost_fence_answered_2xx() -> Iterator[None]:
    """An attempt that was taken over tells the queue that all is well."""
    work = shard_run._work

    def mutated(*args: Any) -> None:
        with suppress(FenceLostError):
            work(*args)

    with mock.patch.object(shard_run, "_work", mutated):
        yield


@contextmanager
def finalize_outside_the_transaction() -> Iterator[None]:
    """Finalize is enqueued once the completion has committed, and not with it."""
    schedule = attempt.schedule_finalize

    def mutated(store: Any, iteration: Any) -> None:
        store.inner.tasks.on_commit(lambda: schedule(store, iteration))

    with mock.patch.object(attempt, "schedule_finalize", mutated):
        yield


@contextmanager
def marker_deleted_before_finalize_ran() -> Iterator[None]:
    """The end is recorded, and the marker deleted, before `finalize` is called."""
    record = finalize.record_success

    def opened(store: Any, iteration: Any) -> Any:
        record(store, iteration)
        return job.opened(store, iteration)

    with mock.patch.object(finalize, "opened", opened), mock.patch.object(finalize, "record_success"):
        yield


@contextmanager
def plan_that_ignores_state() -> Iterator[None]:
    """A plan that comes again plans again."""

    def claim_whole(self: MemoryIterationStore, iteration_id: str, state: IterationState, **kwargs: Any) -> Any:
        found = self.get(iteration_id)
        return found if found and (state is IterationState.NEW or found.state is state) else None

    def planned(self: MemoryIterationStore, iteration: Any, shards: Sequence[Shard], *, total: int | None) -> bool:
        now = self.get(iteration.id)
        if now is not None:
            self.write(rules.planned(now, total))
            self.add_shards(shards)
        return now is not None

    with mock.patch.multiple(MemoryIterationStore, claim_whole=claim_whole, plan=planned):
        yield


@contextmanager
def completion_without_lock() -> Iterator[None]:
    """Two last shards complete at once, and each sees the other open."""
    locked = MemoryIterationStore._locked

    def mutated(self: MemoryIterationStore, table: str, key: str) -> Any:
        return self.tasks.rows(table).get(key) if table == _ITERATIONS else locked(self, table, key)

    with mock.patch.object(MemoryIterationStore, "_locked", mutated):
        yield


OF_ITERATIONS: dict[str, Mutant] = {
    each.__name__: each
    for each in (
        no_fence,
        no_generation,
        count_instead_of_set,
        lost_fence_answered_2xx,
        finalize_outside_the_transaction,
        marker_deleted_before_finalize_ran,
        plan_that_ignores_state,
        completion_without_lock,
    )
}
