"""Deliberate faults: each takes one rule away, and the simulator must notice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from copy import copy
from dataclasses import replace
from types import MappingProxyType
from typing import Any
from unittest import mock

from defer_core.errors import DecodeError
from defer_core.record import State, TaskRecord
from defer_core.send.dispatch import Dispatch
from defer_core.stores.memory import MemoryStore, _Transaction
from defer_core.upkeep import dead_letters, failing, sweep
from defer_core.wire import envelope
from defer_core.wire.envelope import ClaimCheck
from defer_iteration import api
from defer_iteration.errors import FenceLostError
from defer_iteration.model import counters, transitions
from defer_iteration.model.iteration import Iteration, IterationState
from defer_iteration.model.shard import KeyRange, Shard
from defer_iteration.protocol import batches, finalize, passing, shard, suspension
from defer_iteration.protocol.attempt import Attempt
from defer_iteration.protocol.scheduler import Scheduler
from defer_iteration.rows.memory import MemoryRows
from defer_iteration.stores import locking
from defer_iteration.stores.base import Completion
from defer_iteration.stores.memory import _ITERATIONS, _SHARDS, MemoryIterationStore, _shard_key

from .iterations import FaultyIterationStore, key_of

Mutant = Callable[[], AbstractContextManager[Any]]


@contextmanager
def delete_before_send() -> Iterator[None]:
    """The record goes before the queue has the task."""
    send = Dispatch.send

    def mutated(self: Dispatch) -> Any:
        if not self.record.is_claim_check:
            self.store.delete([self.record.id])
        return send(self)

    with mock.patch.object(Dispatch, "send", mutated):
        yield


@contextmanager
def sweep_without_name() -> Iterator[None]:
    """The sweep lets the queue choose a name, so nothing stops a second send."""
    send = Dispatch.send

    def mutated(self: Dispatch) -> Any:
        if self.record.lease:
            self.record = replace(self.record, routing=replace(self.record.routing, name=None))
        return send(self)

    with mock.patch.object(Dispatch, "send", mutated):
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
    with mock.patch.object(dead_letters, "_routing_again", lambda record, config: replace(record.routing, eta=None)):
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


@contextmanager
def stale_lease_that_deletes() -> Iterator[None]:
    """The sweep deletes a record that it has sent without asking for its lease."""
    delete = MemoryStore.delete

    def mutated(self: MemoryStore, record_ids: Sequence[str], *, lease: str | None = None) -> int:
        return delete(self, record_ids)

    with mock.patch.object(MemoryStore, "delete", mutated):
        yield


@contextmanager
def payload_checked_by_its_size() -> Iterator[None]:
    """A stored payload is compared with its ClaimCheck by its size, and not by its digest."""

    def mutated(self: ClaimCheck, payload: bytes) -> None:
        if len(payload) != self.size:
            raise DecodeError

    with mock.patch.object(ClaimCheck, "check", mutated):
        yield


@contextmanager
def payload_checked_by_its_beginning() -> Iterator[None]:
    """What a payload has beyond its first thousand bytes is not looked at."""
    digest = envelope.digest
    with mock.patch.object(envelope, "digest", lambda payload: digest(payload[:1000])):
        yield


@contextmanager
def run_that_gives_up_to_a_sweep() -> Iterator[None]:
    """A failure is not written over a record that a sweep holds the lease of."""

    def mutated(record: TaskRecord, store: Any, **changes: Any) -> bool:
        return store.mark(record.id, lease="", **changes) or store.get(record.id) is not None

    with mock.patch.object(dead_letters, "write_over", mutated):
        yield


@contextmanager
def names_trusted_for_ever() -> Iterator[None]:
    """What may have been taken is sent again, however long ago that was."""
    sent = sweep._sent

    def mutated(record: TaskRecord, store: Any, config: Any) -> str:
        return sent(replace(record, idempotent=True), store, config)

    with mock.patch.object(sweep, "_sent", mutated):
        yield


@contextmanager
def last_attempt_like_any_other() -> Iterator[None]:
    """A task that its queue gives up is failing, until the silence has passed."""
    with mock.patch.object(failing, "_is_last", lambda *args: False):
        yield


@contextmanager
def failures_that_are_not_kept() -> Iterator[None]:
    """A task that fails leaves nothing behind."""
    with mock.patch.object(failing, "_keep"):
        yield


@contextmanager
def success_that_forgets_nothing() -> Iterator[None]:
    """The record of an earlier failure stays when the task has succeeded."""
    with mock.patch.object(failing, "forget"):
        yield


@contextmanager
def sweep_that_sends_what_fails() -> Iterator[None]:
    """The sweep takes failing tasks for waiting ones."""
    lease_due = MemoryStore.lease_due

    def mutated(self: MemoryStore, *, state: State = State.PENDING, **given: Any) -> Any:
        if state is State.PENDING and (taken := lease_due(self, state=State.FAILING, **{**given, "now": 1e12})):
            return taken
        return lease_due(self, state=state, **given)

    with mock.patch.object(MemoryStore, "lease_due", mutated):
        yield


@contextmanager
def silence_that_is_not_heard() -> Iterator[None]:
    """What its queue has dropped without a word stays failing."""
    with mock.patch.object(failing, "give_up", lambda *args: Counter()):
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
        stale_lease_that_deletes,
        payload_checked_by_its_size,
        payload_checked_by_its_beginning,
        run_that_gives_up_to_a_sweep,
        names_trusted_for_ever,
        last_attempt_like_any_other,
        failures_that_are_not_kept,
        success_that_forgets_nothing,
        sweep_that_sends_what_fails,
        silence_that_is_not_heard,
    )
}


# --- iterations -------------------------------------------------------------------------------------------------------


@contextmanager
def no_fence() -> Iterator[None]:
    """A checkpoint does not ask whether a newer attempt has taken over."""

    def mutated(now: Shard, attempt: Shard) -> bool:
        return not now.done and now.generation == attempt.generation

    with mock.patch.object(transitions, "may_write", mutated):
        yield


@contextmanager
def no_generation() -> Iterator[None]:
    """A task of an older generation works on the shard, too, and hands over to the same next one."""
    acquire = MemoryIterationStore.acquire

    def mutated(self: MemoryIterationStore, iteration_id: str, index: int, generation: int, **kwargs: Any) -> Any:
        shard = self.tasks.rows(_SHARDS).get(_shard_key(iteration_id, index))
        current = generation if shard is None else shard.generation
        return acquire(self, iteration_id, index, current, **kwargs)

    with mock.patch.object(MemoryIterationStore, "acquire", mutated):
        yield


@contextmanager
def count_instead_of_set() -> Iterator[None]:
    """Completion counts the tasks that ended, however often one shard's does."""
    ended: Counter[str] = Counter()
    acquire = MemoryIterationStore.acquire

    def acquired(self: MemoryIterationStore, iteration_id: str, index: int, generation: int, **kwargs: Any) -> Any:
        shard = self.tasks.rows(_SHARDS).get(_shard_key(iteration_id, index))
        if shard is not None and shard.done:
            self.write(replace(shard, done=False))
        return acquire(self, iteration_id, index, generation, **kwargs)

    def complete(self: MemoryIterationStore, shard: Shard, quarantine: Sequence[Any] = (), *, due: float) -> Completion:
        with self.transaction():
            iteration = self.lock_iteration(shard.iteration_id)
            if iteration is None or not self._has(shard):
                return Completion.LOST
            self._save(replace(shard, done=True), quarantine)
            ended[iteration.id] += 1
            if iteration.state is not IterationState.RUNNING or ended[iteration.id] < len(self.shards(iteration.id)):
                return Completion.OPEN
            for each in self.shards(iteration.id):
                self.write(replace(each, done=True))
            self.write(transitions.finalizing(iteration, self.shards(iteration.id), due))
            return Completion.LAST

    with mock.patch.multiple(MemoryIterationStore, acquire=acquired, complete=complete):
        yield


@contextmanager
def lost_fence_answered_2xx() -> Iterator[None]:
    """An attempt that was taken over tells the queue that all is well."""
    work = shard._work

    def mutated(*args: Any) -> None:
        with suppress(FenceLostError):
            work(*args)

    with mock.patch.object(shard, "_work", mutated):
        yield


@contextmanager
def finalize_outside_the_transaction() -> Iterator[None]:
    """Finalize is enqueued once the completion has committed, and not with it."""
    schedule = Scheduler.enqueue_finalize

    def mutated(self: Any, iteration: Any) -> None:
        self.store.inner.tasks.on_commit(lambda: schedule(self, iteration))

    with mock.patch.object(Scheduler, "enqueue_finalize", mutated):
        yield


@contextmanager
def marker_deleted_before_finalize_ran() -> Iterator[None]:
    """The end is recorded, and the marker deleted, before `finalize` is called."""
    record = finalize.record_success

    def decode_job(store: Any, iteration: Any) -> Any:
        record(store, iteration)
        return suspension.decode_job(store, iteration)

    with mock.patch.object(finalize, "decode_job", decode_job), mock.patch.object(finalize, "record_success"):
        yield


@contextmanager
def plan_that_ignores_state() -> Iterator[None]:
    """A plan that comes again plans again."""

    def acquire_whole(self: MemoryIterationStore, iteration_id: str, state: IterationState, **kwargs: Any) -> Any:
        found = self.get(iteration_id)
        return found if found and (state is IterationState.NEW or found.state is state) else None

    def planned(self: MemoryIterationStore, iteration: Any, shards: Sequence[Shard], *, total: int | None) -> bool:
        now = self.get(iteration.id)
        if now is not None:
            self.write(transitions.planned(now, total))
            self.add_shards(shards)
        return now is not None

    with mock.patch.multiple(MemoryIterationStore, acquire_whole=acquire_whole, plan=planned):
        yield


@contextmanager
def completion_without_lock() -> Iterator[None]:
    """Two last shards complete at once, and each sees the other open."""
    locked = MemoryIterationStore._lock

    def mutated(self: MemoryIterationStore, table: str, key: str) -> Any:
        return self.tasks.rows(table).get(key) if table == _ITERATIONS else locked(self, table, key)

    with mock.patch.object(MemoryIterationStore, "_lock", mutated):
        yield


@contextmanager
def generations_of_names_from_zero() -> Iterator[None]:
    """Another iteration of a name begins in the generation in which the one before began."""
    with mock.patch.object(api, "_GENERATIONS", 1):
        yield


@contextmanager
def created_unseen() -> Iterator[None]:
    """An iteration is written over the one that has its name."""

    def mutated(self: MemoryIterationStore, iteration: Iteration) -> None:
        self.write(iteration)

    with mock.patch.object(MemoryIterationStore, "create", mutated):
        yield


@contextmanager
def successor_outside_the_transaction() -> Iterator[None]:
    """The next task of a shard is enqueued once the checkpoint has committed, and not with it."""
    schedule = Scheduler.enqueue_shards

    def mutated(self: Any, *args: Any, **options: Any) -> None:
        self.store.inner.tasks.on_commit(lambda: schedule(self, *args, **options))

    with mock.patch.object(Scheduler, "enqueue_shards", mutated):
        yield


@contextmanager
def counted_outside_the_transaction() -> Iterator[None]:
    """A quarantined row that has succeeded is settled first, and what it has counted is added then."""
    settle = FaultyIterationStore.record_retry

    def mutated(self: Any, row: Any, *, error: str | None, counted: Any = MappingProxyType({})) -> None:
        settle(self, row, error=error)
        with self.transaction():
            iteration = self.inner.lock_iteration(row.iteration_id)
            if iteration is not None and counted:
                self.inner.write(replace(iteration, counters=counters.merged([iteration.counters, counted])))

    with mock.patch.object(FaultyIterationStore, "record_retry", mutated):
        yield


@contextmanager
def failed_for_good() -> Iterator[None]:
    """An iteration that a row has stopped does not know where it was."""
    moved = transitions.moved

    def mutated(iteration: Iteration, to: IterationState, reason: str) -> Iteration:
        found = moved(iteration, to, reason)
        return replace(found, resumes=None) if to is IterationState.FAILED else found

    with mock.patch.object(transitions, "moved", mutated):
        yield


@contextmanager
def unreadable_row_is_passed() -> Iterator[None]:
    """A row that cannot be read is left behind as if it had been passed."""
    located = passing.RowPasser.located

    def mutated(self: Any, result: Any) -> Any:
        found = located(self, result)
        return replace(found, reason=passing.StopReason.TIME, last=found.key) if found.key else found

    with mock.patch.object(passing.RowPasser, "located", mutated):
        yield


@contextmanager
def short_page_is_the_last() -> Iterator[None]:
    """A page ends its range where it is shorter than the longest may be, however few rows it asked for."""

    def mutated(self: Any, rows: int) -> int:
        self.asked = min(rows, self.page_size)
        return int(self.page_size)

    with mock.patch.object(MemoryRows, "ask_for", mutated):
        yield


# --- division ---------------------------------------------------------------------------------------------------------


@contextmanager
def _divided(mutated: Callable[..., Any]) -> Iterator[None]:
    """Let a function divide, which is given the real one first."""
    divide = MemoryIterationStore.divide
    with mock.patch.object(MemoryIterationStore, "divide", lambda *args, **given: mutated(divide, *args, **given)):
        yield


@contextmanager
def _refilled(mutated: Callable[[Shard, Shard], Shard]) -> Iterator[None]:
    """Let a function change what becomes of a shard that is given a part."""
    refilled = transitions.refilled
    changed = mock.patch.object(
        transitions, "refilled", lambda before, part, due: mutated(before, refilled(before, part, due))
    )
    with changed:
        yield


@contextmanager
def _cut(mutated: Callable[..., list[KeyRange]]) -> Iterator[None]:
    """Let a function change the ranges that a division writes."""
    cut = locking.cut
    with mock.patch.object(locking, "cut", lambda within, bounds: mutated(*cut(within, bounds))):
        yield


@contextmanager
def _giving(mutated: Callable[..., Shard]) -> Iterator[None]:
    """Let a function give away, which is given the real one first."""
    give = Attempt._give_away
    with mock.patch.object(Attempt, "_give_away", lambda *args: mutated(give, *args)):
        yield


@contextmanager
def divided_without_fence() -> Iterator[None]:
    """An attempt that was taken over divides the shard of the newer one."""

    def mutated(divide: Any, self: MemoryIterationStore, attempt: Shard, ranges: Any, **given: Any) -> Any:
        now = self.shard(attempt.iteration_id, attempt.index)
        if now is not None:
            attempt = replace(attempt, generation=now.generation, fence=now.fence)
        return divide(self, attempt, ranges, **given)

    with _divided(mutated):
        yield


@contextmanager
def divided_and_walked_to_the_end() -> Iterator[None]:
    """An attempt that has given parts away goes on in its old range."""

    def mutated(give: Any, self: Attempt, shard: Shard, ranges: Any) -> Shard:
        given: Shard = give(self, shard, ranges)
        self.passer.within = shard.range
        return given

    with _giving(mutated):
        yield


@contextmanager
def parts_outside_the_transaction() -> Iterator[None]:
    """The tasks of the parts are enqueued once the division has committed, and not with it."""

    def mutated(give: Any, self: Attempt, *given: Any) -> Shard:
        scheduler: Any = self.scheduler
        on_commit = scheduler.store.inner.tasks.on_commit
        later = mock.Mock(enqueue_shards=lambda *args: on_commit(lambda: scheduler.enqueue_shards(*args)))
        self.scheduler = later
        try:
            return give(self, *given)  # type: ignore[no-any-return]
        finally:
            self.scheduler = scheduler

    with _giving(mutated):
        yield


@contextmanager
def divided_in_two_transactions() -> Iterator[None]:
    """The shard's own range is written first, and the parts are given in another transaction."""

    def mutated(give: Any, self: Attempt, shard: Shard, ranges: Any) -> Shard:
        if len(ranges) > 1:
            self.store.transact(lambda: self.store.checkpoint(replace(shard, range=ranges[0])))
        return give(self, shard, ranges)  # type: ignore[no-any-return]

    with _giving(mutated):
        yield


@contextmanager
def part_in_the_same_generation() -> Iterator[None]:
    """A shard that is given a part stays in its generation."""
    with _refilled(lambda before, now: replace(now, generation=before.generation)):
        yield


@contextmanager
def part_with_the_old_position() -> Iterator[None]:
    """A shard that is given a part stays at the key where it was done."""
    with _refilled(lambda before, now: replace(now, position=before.position)):
        yield


@contextmanager
def part_without_the_old_counters() -> Iterator[None]:
    """A shard that is given a part forgets what it has counted."""
    with _refilled(lambda before, now: replace(now, counters={})):
        yield


@contextmanager
def part_that_is_done() -> Iterator[None]:
    """A shard that is given a part is done all the same."""
    with _refilled(lambda before, now: replace(now, done=True)):
        yield


@contextmanager
def parts_for_shards_that_are_open() -> Iterator[None]:
    """Parts are given to any shards, done or not."""

    def mutated(self: MemoryIterationStore, iteration_id: str, limit: int) -> list[Shard]:
        return self.lock_open(iteration_id, -1, limit)

    with mock.patch.object(MemoryIterationStore, "lock_done", mutated):
        yield


@contextmanager
def parts_for_shards_that_were_done() -> Iterator[None]:
    """Which shards are done is asked before the iteration is locked, and not again."""

    def mutated(divide: Any, self: MemoryIterationStore, attempt: Shard, ranges: Any, **given: Any) -> Any:
        done = [each for each in self.shards(attempt.iteration_id) if each.done]
        other: Any = copy(self)
        other.lock_done = lambda iteration_id, limit: done[:limit]
        return divide(other, attempt, ranges, **given)

    with _divided(mutated):
        yield


@contextmanager
def part_begins_late() -> Iterator[None]:
    """A part begins beyond its first row."""

    def mutated(first: KeyRange, *parts: KeyRange) -> list[KeyRange]:
        return [first, *(replace(each, lower=(each.lower[0] + 1,)) for each in parts if each.lower)]

    with _cut(mutated):
        yield


@contextmanager
def part_begins_twice() -> Iterator[None]:
    """A shard keeps the row that the first part begins with."""

    def mutated(first: KeyRange, *parts: KeyRange) -> list[KeyRange]:
        return [replace(first, closed=True), *parts]

    with _cut(mutated):
        yield


# --- batches ----------------------------------------------------------------------------------------------------------


def _raised(change: Callable[[Any, Any], Any]) -> AbstractContextManager[Any]:
    """Change what becomes of a batch of several rows that has raised."""
    raised = batches.BatchPasser._raised

    def mutated(self: Any, error: Exception, after: Any, keys: list[Any]) -> Any:
        result = raised(self, error, after, keys)
        return change(result, self.rows.key(keys[-1])) if result.reason is passing.StopReason.HALVED else result

    return mock.patch.object(batches.BatchPasser, "_raised", mutated)


@contextmanager
def halving_skips_a_row() -> Iterator[None]:
    """A batch that has raised is read again from its second row on."""
    with _raised(lambda result, last: replace(result, last=result.key)):
        yield


@contextmanager
def batch_that_raised_is_passed() -> Iterator[None]:
    """The position moves by a batch that has raised."""
    with _raised(lambda result, last: replace(result, last=last)):
        yield


@contextmanager
def batch_blames_its_first_row() -> Iterator[None]:
    """A batch that has raised is not halved."""
    with _raised(lambda result, last: replace(result, reason=passing.StopReason.RAISED)):
        yield


@contextmanager
def failing_row_among_others() -> Iterator[None]:
    """A row that has raised comes again with those after it."""
    with mock.patch.object(batches, "_alone_first", lambda attempt, passer: passer):
        yield


@contextmanager
def batch_position_before_its_call() -> Iterator[None]:
    """The position moves by a batch before the callback has its rows."""
    begun = batches._alone_first

    def mutated(attempt: Any, passer: Any) -> Any:
        call = passer.call

        def moved_first(batch: list[str]) -> Any:
            position = (key_of(batch[-1]),)
            attempt.store.transact(lambda: attempt.store.checkpoint(replace(attempt.shard, position=position)))
            return call(batch)

        passer.call = moved_first
        return begun(attempt, passer)

    with mock.patch.object(batches, "_alone_first", mutated):
        yield


@contextmanager
def news_outside_the_transaction() -> Iterator[None]:
    """The news of a failed iteration is enqueued once its state is committed, and not with it."""
    enqueue = Scheduler.enqueue_failed

    def mutated(self: Any, iteration: Iteration) -> None:
        self.store.inner.tasks.on_commit(lambda: enqueue(self, iteration))

    with mock.patch.object(Scheduler, "enqueue_failed", mutated):
        yield


@contextmanager
def throttled_without_successor() -> Iterator[None]:
    """A shard that has to wait ends without a task that goes on."""

    def mutated(self: Attempt) -> bool:
        return self.pace.wait(self.throttle.next_at(self.shard.rows))

    with mock.patch.object(Attempt, "_wait", mutated):
        yield


@contextmanager
def trial_without_end() -> Iterator[None]:
    """The last shard of a trial takes itself for the last of all."""
    complete = locking.LockingStore.complete

    def mutated(self: Any, *given: Any, **named: Any) -> Completion:
        with mock.patch.object(transitions, "beyond_trial", lambda shards, due: []):
            return complete(self, *given, **named)

    with mock.patch.object(locking.LockingStore, "complete", mutated):
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
        created_unseen,
        generations_of_names_from_zero,
        successor_outside_the_transaction,
        counted_outside_the_transaction,
        failed_for_good,
        unreadable_row_is_passed,
        short_page_is_the_last,
        divided_without_fence,
        divided_and_walked_to_the_end,
        parts_outside_the_transaction,
        divided_in_two_transactions,
        part_in_the_same_generation,
        part_with_the_old_position,
        part_without_the_old_counters,
        part_that_is_done,
        parts_for_shards_that_are_open,
        parts_for_shards_that_were_done,
        part_begins_late,
        part_begins_twice,
        halving_skips_a_row,
        batch_that_raised_is_passed,
        batch_blames_its_first_row,
        failing_row_among_others,
        batch_position_before_its_call,
        news_outside_the_transaction,
        throttled_without_successor,
        trial_without_end,
    )
}
