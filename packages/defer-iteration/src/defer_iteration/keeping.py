"""The protocol's writes, over what each kind of database does in its own way: hold a row, read, write."""

from __future__ import annotations

import builtins
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace

from . import rules
from .base import Completion, IterationStore
from .iteration import Iteration, IterationState, QuarantinedRow
from .shard import Shard, Stalled


class KeepingStore(IterationStore):
    """An IterationStore whose rows are held while they are looked at and written.

    Shards are asked after before one is written: a transaction of `gcloudc` refuses a query about what it has written.
    """

    @abstractmethod
    def held_iteration(self, iteration_id: str) -> Iteration | None:
        """An iteration as it is now, held until the end of the transaction; the first statement is a write."""

    @abstractmethod
    def held_shard(self, iteration_id: str, index: int) -> Shard | None:
        """A shard as it is now, held until the end of the transaction; the first statement is a write."""

    @abstractmethod
    def held_open(self, iteration_id: str, after: int, limit: int | None) -> builtins.list[Shard]:
        """Shards that are not done, by index, those beyond `after`; held likewise."""

    @abstractmethod
    def state(self, iteration_id: str) -> IterationState | None:
        """The state of an iteration as it is now."""

    @abstractmethod
    def has_open(self, iteration_id: str, *, besides: int | None = None) -> bool:
        """Whether any shard, `besides` that one, is not done."""

    @abstractmethod
    def add_shards(self, shards: Sequence[Shard]) -> None:
        """Write new shards."""

    @abstractmethod
    def write(self, noun: Iteration | Shard) -> None:
        """Write what is held."""

    @abstractmethod
    def quarantine(self, row: QuarantinedRow) -> None:
        """Write a quarantined row, over an older one of the same key."""

    # --- plan and claims ----------------------------------------------------------------------------------------------

    def plan(self, iteration: Iteration, shards: Sequence[Shard], *, total: int | None) -> bool:
        with self.transaction():
            now = self.held_iteration(iteration.id)
            if now is None or not rules.may_plan(now, iteration):
                return False
            self.write(rules.planned(now, total))
            self.add_shards(shards)
            return True

    def claim(
        self, iteration_id: str, index: int, generation: int, *, due: Callable[[int], float]
    ) -> tuple[Iteration, Shard] | None:
        with self.transaction():
            shard = self.held_shard(iteration_id, index)
            if shard is None or not rules.may_claim(shard, generation):
                return None
            iteration = self.get(iteration_id)
            if iteration is None or iteration.state is not IterationState.RUNNING:
                return None
            shard = replace(shard, fence=shard.fence + 1, due=due(shard.wakes))
            self.write(shard)
            return iteration, shard

    def claim_whole(self, iteration_id: str, state: IterationState, *, due: Callable[[int], float]) -> Iteration | None:
        with self.transaction():
            iteration = self.held_iteration(iteration_id)
            if iteration is None or iteration.state is not state:
                return None
            iteration = rules.claimed(iteration, due(iteration.wakes))
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
            self._save(rules.successor(shard) if state is IterationState.RUNNING else shard, quarantine)
            return state

    def complete(self, shard: Shard, quarantine: Sequence[QuarantinedRow] = (), *, due: float) -> Completion:
        with self.transaction():
            iteration = self.held_iteration(shard.iteration_id)
            if iteration is None or not self._has(shard):
                return Completion.LOST
            running = iteration.state is IterationState.RUNNING
            is_last = running and not self.has_open(shard.iteration_id, besides=shard.index)
            if is_last:
                others = [each for each in self.shards(iteration.id) if each.index != shard.index]
                self.write(rules.finalizing(iteration, [*others, shard], due))
            self._save(replace(shard, done=True), quarantine)
            return Completion.LAST if is_last else Completion.OPEN

    def _has(self, attempt: Shard) -> bool:
        """Whether an attempt still has its shard, which is held."""
        now = self.held_shard(attempt.iteration_id, attempt.index)
        return now is not None and rules.may_write(now, attempt)

    def _save(self, shard: Shard, quarantine: Sequence[QuarantinedRow]) -> None:
        self.write(shard)
        for row in quarantine:
            self.quarantine(row)

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
            before = self.held_iteration(iteration_id)
            if before is None or before.state not in when:
                return None
            self.write(self._resumed(before, due) if to is IterationState.RUNNING else rules.moved(before, to, reason))
            return before

    def _resumed(self, iteration: Iteration, due: float) -> Iteration:
        resumed = rules.resumed(iteration, due)
        if resumed.state is not IterationState.RUNNING or self.has_open(iteration.id):
            return resumed
        return rules.finalizing(resumed, self.shards(iteration.id), due)

    def reopen(
        self, iteration_id: str, *, due: float, after: int = -1, limit: int | None = None
    ) -> builtins.list[Shard]:
        with self.transaction():
            shards = [rules.reopened(each, due) for each in self.held_open(iteration_id, after, limit)]
            for shard in shards:
                self.write(shard)
            return shards

    def wake(self, stalled: Stalled, *, due: float) -> Iteration | Shard | None:
        with self.transaction():
            now: Iteration | Shard | None
            if stalled.index is None:
                now = self.held_iteration(stalled.iteration_id)
            else:
                now = self.held_shard(stalled.iteration_id, stalled.index)
            woken = now and rules.woken(now, stalled, due)
            if woken:
                self.write(woken)
            return woken or None
