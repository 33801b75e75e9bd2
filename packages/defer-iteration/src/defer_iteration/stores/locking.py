"""The writes of the seam, over what each kind of database does in its own way: lock a row, read, write."""

from __future__ import annotations

import builtins
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from ..model import transitions
from ..model.counters import Part, merged
from ..model.iteration import Iteration, IterationState, QuarantinedRow
from ..model.shard import KeyRange, Shard, Stalled, cut
from .base import Completion, Due, IterationStore


class LockingStore(IterationStore):
    """An IterationStore that locks a row before it decides what to write.

    Whether shards are open is asked before one is written: `gcloudc` refuses queries about what a transaction has
    written.
    """

    @abstractmethod
    def lock_iteration(self, iteration_id: str) -> Iteration | None:
        """Lock an iteration until the end of the transaction, beginning with a write, and return it as it is now."""

    @abstractmethod
    def lock_shard(self, iteration_id: str, index: int) -> Shard | None:
        """Lock a shard until the end of the transaction, beginning with a write, and return it as it is now."""

    @abstractmethod
    def lock_open(self, iteration_id: str, after: int, limit: int | None) -> builtins.list[Shard]:
        """Lock the open shards whose index is above `after`, at most `limit`, and return them by index."""

    @abstractmethod
    def lock_done(self, iteration_id: str, limit: int) -> builtins.list[Shard]:
        """Lock shards that are done, at most `limit`, and return them as they are now, if they are done still."""

    @abstractmethod
    def state(self, iteration_id: str) -> IterationState | None:
        """Return the state of an iteration as it is now."""

    @abstractmethod
    def has_open(self, iteration_id: str, *, besides: int | None = None) -> bool:
        """Return whether any shard is open, `besides` that one."""

    @abstractmethod
    def add_shards(self, shards: Sequence[Shard]) -> None:
        """Write new shards."""

    @abstractmethod
    def drop_shards(self, iteration_id: str) -> None:
        """Delete the shards of an iteration."""

    @abstractmethod
    def write(self, noun: Iteration | Shard) -> None:
        """Write what is locked."""

    @abstractmethod
    def quarantine(self, row: QuarantinedRow) -> None:
        """Write a quarantined row, over an older one of the same key."""

    @abstractmethod
    def forget_quarantined(self, row: QuarantinedRow) -> None:
        """Delete a quarantined row."""

    # --- plan and acquiring -------------------------------------------------------------------------------------------

    def plan(self, iteration: Iteration, shards: Sequence[Shard], *, total: int | None) -> bool:
        with self.transaction():
            now = self.lock_iteration(iteration.id)
            if now is None or not transitions.may_plan(now, iteration):
                return False
            self.write(transitions.planned(now, total))
            self.add_shards(shards)
            return True

    def acquire(self, iteration_id: str, index: int, generation: int, *, due: Due) -> tuple[Iteration, Shard] | None:
        with self.transaction():
            shard = self.lock_shard(iteration_id, index)
            if shard is None or not transitions.may_acquire(shard, generation):
                return None
            iteration = self.get(iteration_id)
            if iteration is None or iteration.state is not IterationState.RUNNING:
                return None
            shard = replace(shard, fence=shard.fence + 1, due=due(shard.requeues))
            self.write(shard)
            return iteration, shard

    def acquire_whole(self, iteration_id: str, state: IterationState, *, due: Due) -> Iteration | None:
        with self.transaction():
            iteration = self.lock_iteration(iteration_id)
            if iteration is None or iteration.state is not state:
                return None
            iteration = transitions.acquired(iteration, due(iteration.requeues))
            self.write(iteration)
            return iteration

    # --- an attempt's writes ------------------------------------------------------------------------------------------

    def checkpoint(self, shard: Shard, quarantine: Sequence[QuarantinedRow] = ()) -> IterationState | None:
        with self.transaction():
            if not self._has(shard):
                return None
            self._save(shard, quarantine)
            return self.state(shard.iteration_id)

    def hand_over(self, shard: Shard, quarantine: Sequence[QuarantinedRow] = ()) -> IterationState | None:
        with self.transaction():
            if not self._has(shard):
                return None
            state = self.state(shard.iteration_id)
            self._save(transitions.successor(shard) if state is IterationState.RUNNING else shard, quarantine)
            return state

    def complete(self, shard: Shard, quarantine: Sequence[QuarantinedRow] = (), *, due: float) -> Completion:
        with self.transaction():
            iteration = self.lock_iteration(shard.iteration_id)
            if iteration is None or not self._has(shard):
                return Completion.LOST
            running = iteration.state is IterationState.RUNNING
            is_last = running and not self.has_open(shard.iteration_id, besides=shard.index)
            others = [each for each in self.shards(iteration.id) if each.index != shard.index] if is_last else []
            shard = replace(shard, done=True)
            if beyond := transitions.beyond_trial([*others, shard] if is_last else (), due):
                self.write(transitions.tried(iteration))
            elif is_last:
                self.write(transitions.finalizing(iteration, [*others, shard], due))
            self._save(shard, quarantine)
            for each in beyond:
                self.write(each)
            return Completion.LAST if is_last and not beyond else Completion.OPEN

    def divide(self, shard: Shard, ranges: Sequence[KeyRange], *, due: float) -> builtins.list[Shard] | None:
        with self.transaction():
            iteration = self.lock_iteration(shard.iteration_id)
            if iteration is None or not self._has(shard):
                return None
            is_running = iteration.state is IterationState.RUNNING
            done = self.lock_done(shard.iteration_id, len(ranges) - 1) if is_running else []
            if not done:
                return [shard]
            bounds = [each.lower for each in ranges[1 : len(done) + 1] if each.lower is not None]
            first, *parts = cut(shard.range, bounds)
            given = [transitions.refilled(each, part, due) for each, part in zip(done, parts, strict=True)]
            shards = [replace(shard, range=first), *given]
            for each in shards:
                self.write(each)
            return shards

    def _has(self, attempt: Shard) -> bool:
        """Lock the shard of an attempt, and return whether the attempt still has it."""
        now = self.lock_shard(attempt.iteration_id, attempt.index)
        return now is not None and transitions.may_write(now, attempt)

    def _save(self, shard: Shard, quarantine: Sequence[QuarantinedRow]) -> None:
        self.write(shard)
        for row in quarantine:
            self.quarantine(row)

    def record_error(self, attempt: Iteration | Shard, error: str) -> bool:
        with self.transaction():
            if isinstance(attempt, Shard):
                shard = self.lock_shard(attempt.iteration_id, attempt.index)
                if shard is None or not transitions.may_write(shard, attempt):
                    return False
                self.write(transitions.failed(shard, error))
            else:
                now = self.lock_iteration(attempt.id)
                if now is None or (now.state, now.generation) != (attempt.state, attempt.generation):
                    return False
                self.write(transitions.failed(now, error))
            return True

    # --- quarantined rows ---------------------------------------------------------------------------------------------

    def record_retry(
        self, row: QuarantinedRow, *, error: str | None, counted: Mapping[str, Part] = MappingProxyType({})
    ) -> None:
        with self.transaction():
            now = self.lock_quarantined(row)
            if now is None:
                return
            if error is not None:
                self.quarantine(replace(now, error=error, attempts=now.attempts + 1))
                return
            self.forget_quarantined(now)
            iteration = self.lock_iteration(row.iteration_id) if counted else None
            if iteration is not None:
                self.write(replace(iteration, counters=merged([iteration.counters, counted])))

    # --- control and the sweep ----------------------------------------------------------------------------------------

    def control(
        self,
        iteration_id: str,
        to: IterationState,
        *,
        when: Sequence[IterationState],
        reason: str = "",
        due: float = 0.0,
    ) -> Iteration | None:
        with self.transaction():
            before = self.lock_iteration(iteration_id)
            if before is None or before.state not in when:
                return None
            self.write(
                self._resumed(before, due) if to is IterationState.RUNNING else transitions.moved(before, to, reason)
            )
            return before

    def _resumed(self, iteration: Iteration, due: float) -> Iteration:
        resumed = transitions.resumed(iteration, due)
        if resumed.state is not IterationState.RUNNING or self.has_open(iteration.id):
            return resumed
        shards = self.shards(iteration.id)
        is_in_trial = any(each.rest is not None for each in shards)
        return resumed if is_in_trial else transitions.finalizing(resumed, shards, due)

    def renew(
        self, iteration_id: str, *, due: float, after: int = -1, limit: int | None = None
    ) -> builtins.list[Shard]:
        with self.transaction():
            shards = [transitions.renewed(each, due) for each in self.lock_open(iteration_id, after, limit)]
            if not shards and after < 0:
                shards = transitions.beyond_trial(self.shards(iteration_id), due)
            for shard in shards:
                self.write(shard)
            return shards

    def requeue(self, stalled: Stalled, *, due: float) -> Iteration | Shard | None:
        with self.transaction():
            now: Iteration | Shard | None
            if stalled.index is None:
                now = self.lock_iteration(stalled.iteration_id)
            else:
                now = self.lock_shard(stalled.iteration_id, stalled.index)
            requeued = now and transitions.requeued(now, stalled, due)
            if requeued:
                self.write(requeued)
            return requeued or None

    # --- history ------------------------------------------------------------------------------------------------------

    def delete_shards(self, iteration: Iteration) -> None:
        self.transact(partial(self._delete_shards, iteration))

    def _delete_shards(self, iteration: Iteration) -> None:
        if transitions.is_over(self.lock_iteration(iteration.id), iteration):
            self.drop_shards(iteration.id)

    def forget(self, iteration_id: str, *, ended_before: float | None = None) -> bool:
        return self.transact(partial(self._forget, iteration_id, ended_before))

    def _forget(self, iteration_id: str, ended_before: float | None) -> bool:
        if not self.may_forget(self.lock_iteration(iteration_id), ended_before):
            return False
        self.delete(iteration_id)
        return True

    def may_forget(self, now: Iteration | None, ended_before: float | None) -> bool:
        """Return whether an iteration may be deleted as it is now."""
        if now is None or not transitions.may_forget(now, ended_before):
            return False
        return ended_before is None or not self.quarantined(now.id)
