"""Iterations in this process's memory, in the transactions of a MemoryStore: for simulations and tests.

Transactions are READ COMMITTED, as PostgreSQL's: every read sees what is committed by then and the caller's own
writes, so two last shards can each see the other open; a write waits for whoever holds the row (`tasks.wait` is
called meanwhile), and then looks at the row as it is.

    tasks = MemoryStore()
    store = MemoryIterationStore(tasks)
    with in_memory(store=tasks), stores.in_use(store):                     # defer_core.testing, defer_iteration.stores
        defer_iteration_with_finalize(my_rows, callback, finalize, _shards=3)
        drain()

where `my_rows` is a function at the top of a module that returns Rows, for example `MemoryRows(a_dict)`.
"""

from __future__ import annotations

import builtins
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from defer_core import clock
from defer_core.stores.memory import MemoryStore

from .base import Completion, IterationStore
from .iteration import Iteration, IterationState, QuarantinedRow
from .rows import Rows, Split
from .shard import Key, KeyRange, Shard, Stalled

_ITERATIONS, _SHARDS, _QUARANTINED = "iterations", "shards", "quarantined rows"
_STOPPED = (IterationState.PAUSED, IterationState.HELD)
_WHOLE = (IterationState.NEW, IterationState.FINALIZING)


class MemoryIterationStore(IterationStore):
    """Keeps iterations beside the records of a MemoryStore."""

    def __init__(self, tasks: MemoryStore) -> None:
        self.tasks = tasks
        self.alias = tasks.alias

    def transaction(self) -> AbstractContextManager[Any]:
        return self.tasks.transaction()

    def in_transaction(self) -> bool:
        return self.tasks.in_transaction()

    def _locked(self, table: str, key: str) -> Any | None:
        """A row, held until the end of the transaction."""
        self.tasks.lock_row(table, key)
        return self.tasks.rows(table).get(key)

    def _write(self, *nouns: Iteration | Shard) -> None:
        for noun in nouns:
            if isinstance(noun, Iteration):
                self.tasks.write_rows(_ITERATIONS, {noun.id: noun})
            else:
                self.tasks.write_rows(_SHARDS, {_shard_key(noun.iteration_id, noun.index): noun})

    # --- the protocol's writes ----------------------------------------------------------------------------------------

    def create(self, iteration: Iteration) -> None:
        self._write(iteration)

    def plan(self, iteration_id: str, shards: Sequence[Shard], *, total: int | None) -> bool:
        with self.transaction():
            iteration = self._locked(_ITERATIONS, iteration_id)
            if iteration is None or iteration.state is not IterationState.NEW:
                return False
            self._write(replace(iteration, state=IterationState.RUNNING, total=total, wakes=0), *shards)
            return True

    def claim(
        self, iteration_id: str, index: int, generation: int, *, due: Callable[[int], float]
    ) -> tuple[Iteration, Shard] | None:
        iteration = self.get(iteration_id)
        if iteration is None or iteration.state is not IterationState.RUNNING:
            return None
        with self.transaction():
            shard = self._locked(_SHARDS, _shard_key(iteration_id, index))
            if shard is None or shard.generation != generation or shard.done:
                return None
            shard = replace(shard, fence=shard.fence + 1, due=due(shard.wakes))
            self._write(shard)
            return iteration, shard

    def claim_whole(self, iteration_id: str, state: IterationState, *, due: Callable[[int], float]) -> Iteration | None:
        with self.transaction():
            iteration = self._locked(_ITERATIONS, iteration_id)
            if iteration is None or iteration.state is not state:
                return None
            iteration = replace(iteration, due=due(iteration.wakes))
            self._write(iteration)
            return iteration

    def checkpoint(self, shard: Shard, quarantine: Sequence[QuarantinedRow] = ()) -> IterationState | None:
        with self.transaction():
            return self._state(shard.iteration_id) if self._save(shard, quarantine) else None

    def hand_over(self, shard: Shard, quarantine: Sequence[QuarantinedRow] = ()) -> IterationState | None:
        with self.transaction():
            if not self._save(shard, quarantine):
                return None
            state = self._state(shard.iteration_id)
            if state is IterationState.RUNNING:
                self._write(replace(shard, generation=shard.generation + 1))
            return state

    def complete(self, shard: Shard, quarantine: Sequence[QuarantinedRow] = (), *, due: float) -> Completion:
        with self.transaction():
            iteration = self._locked(_ITERATIONS, shard.iteration_id)
            if iteration is None or not self._save(replace(shard, done=True), quarantine):
                return Completion.LOST
            if iteration.state is not IterationState.RUNNING or not self._finish_set(iteration, due=due):
                return Completion.OPEN
            return Completion.LAST

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
            before: Iteration | None = self._locked(_ITERATIONS, iteration_id)
            if before is None or before.state not in when:
                return None
            if to is IterationState.RUNNING:
                self._resume(before, due=due)
            else:
                resumes = before.resumes or before.state if to in _STOPPED else None
                finished = clock.now() if to.is_over else None
                self._write(replace(before, state=to, resumes=resumes, reason=reason, finished=finished))
            return before

    def reopen(self, iteration_id: str, *, due: float) -> builtins.list[Shard]:
        reopened = []
        with self.transaction():
            for shard in self.shards(iteration_id):
                now = self._locked(_SHARDS, _shard_key(iteration_id, shard.index))
                if now is not None and not now.done:
                    reopened.append(replace(now, generation=now.generation + 1, due=due, attempts=0, wakes=0))
            self._write(*reopened)
        return reopened

    def _state(self, iteration_id: str) -> IterationState | None:
        iteration = self.get(iteration_id)
        return None if iteration is None else iteration.state

    def _save(self, shard: Shard, quarantine: Sequence[QuarantinedRow]) -> bool:
        now = self._locked(_SHARDS, _shard_key(shard.iteration_id, shard.index))
        if now is None or now.done or (now.generation, now.fence) != (shard.generation, shard.fence):
            return False
        self._write(shard)
        self.tasks.write_rows(_QUARANTINED, {_quarantine_key(row): row for row in quarantine})
        return True

    def _finish_set(self, iteration: Iteration, *, due: float) -> bool:
        """With the iteration locked: to `finalizing`, if no shard is open."""
        shards = self.shards(iteration.id)
        if not all(shard.done for shard in shards):
            return False
        counters: Counter[str] = Counter()
        for shard in shards:
            counters.update(shard.counters)
        self._write(
            replace(
                iteration,
                state=IterationState.FINALIZING,
                counters=counters,
                generation=iteration.generation + 1,
                due=due,
                wakes=0,
            )
        )
        return True

    def _resume(self, iteration: Iteration, *, due: float) -> None:
        state = iteration.resumes or iteration.state
        resumed = replace(
            iteration, state=state, resumes=None, reason="", generation=iteration.generation + 1, due=due, wakes=0
        )
        self._write(resumed)
        if state is IterationState.RUNNING:
            self._finish_set(resumed, due=due)

    # --- the sweep ----------------------------------------------------------------------------------------------------

    def stalled(self, *, now: float, limit: int) -> builtins.list[Stalled]:
        iterations = self.tasks.rows(_ITERATIONS)
        found = [
            Stalled(iteration_id=each.id, generation=each.generation, due=each.due, wakes=each.wakes)
            for each in iterations.values()
            if each.state in _WHOLE and each.due <= now
        ]
        for shard in self.tasks.rows(_SHARDS).values():
            iteration = iterations.get(shard.iteration_id)
            if iteration is None or iteration.state is not IterationState.RUNNING or shard.done or shard.due > now:
                continue
            found.append(
                Stalled(
                    iteration_id=shard.iteration_id,
                    index=shard.index,
                    generation=shard.generation,
                    due=shard.due,
                    wakes=shard.wakes,
                )
            )
        return sorted(found, key=lambda each: each.due)[:limit]

    def wake(self, stalled: Stalled, *, due: float) -> bool:
        with self.transaction():
            now = self._stalled_now(stalled)
            if now is None or (now.generation, now.due) != (stalled.generation, stalled.due):
                return False
            self._write(replace(now, generation=now.generation + 1, due=due, wakes=now.wakes + 1))
            return True

    def _stalled_now(self, stalled: Stalled) -> Iteration | Shard | None:
        if stalled.index is None:
            iteration: Iteration | None = self._locked(_ITERATIONS, stalled.iteration_id)
            return iteration if iteration is not None and iteration.state in _WHOLE else None
        shard: Shard | None = self._locked(_SHARDS, _shard_key(stalled.iteration_id, stalled.index))
        return shard if shard is not None and not shard.done else None

    # --- reads --------------------------------------------------------------------------------------------------------

    def get(self, iteration_id: str) -> Iteration | None:
        return self.tasks.rows(_ITERATIONS).get(iteration_id)

    def list(self, *, limit: int = 100, after: str = "") -> builtins.list[Iteration]:
        found = sorted(self.tasks.rows(_ITERATIONS).values(), key=lambda each: each.id)
        return [each for each in found if each.id > after][:limit]

    def shards(self, iteration_id: str) -> builtins.list[Shard]:
        found = [each for each in self.tasks.rows(_SHARDS).values() if each.iteration_id == iteration_id]
        return sorted(found, key=lambda each: each.index)

    def quarantined(self, iteration_id: str) -> builtins.list[QuarantinedRow]:
        found = [each for each in self.tasks.rows(_QUARANTINED).values() if each.iteration_id == iteration_id]
        return sorted(found, key=lambda each: (each.index, repr(each.key)))

    def settle_quarantined(self, row: QuarantinedRow, *, error: str | None) -> None:
        now = self.tasks.rows(_QUARANTINED).get(_quarantine_key(row))
        if now is not None:
            after = None if error is None else replace(now, error=error, attempts=now.attempts + 1)
            self.tasks.write_rows(_QUARANTINED, {_quarantine_key(row): after})

    def delete(self, iteration_id: str) -> None:
        with self.transaction():
            shards = {_shard_key(iteration_id, each.index): None for each in self.shards(iteration_id)}
            rows = {_quarantine_key(each): None for each in self.quarantined(iteration_id)}
            self._locked(_ITERATIONS, iteration_id)
            self.tasks.write_rows(_ITERATIONS, {iteration_id: None})
            self.tasks.write_rows(_SHARDS, shards)
            self.tasks.write_rows(_QUARANTINED, rows)


def _shard_key(iteration_id: str, index: int) -> str:
    return f"{iteration_id}-{index}"


def _quarantine_key(row: QuarantinedRow) -> str:
    return f"{row.iteration_id}-{row.key!r}"


class MemoryRows(Rows):
    """The values of a dict, in the order of its keys, which are all of one type."""

    def __init__(self, values: Mapping[Any, Any], *, page: int = 10) -> None:
        self.values = values
        self.page_size = page
        self._taken: Any = None

    def split(self, shards: int) -> Split:
        keys = sorted(self.values)
        starts = [keys[len(keys) * index // shards] for index in range(shards)] if keys else []
        starts = sorted(set(starts))
        ends = [*starts[1:], keys[-1]] if keys else []
        ranges = [
            KeyRange(lower=(start,), upper=(end,), closed=index == len(starts) - 1)
            for index, (start, end) in enumerate(zip(starts, ends, strict=True))
        ]
        return Split(ranges=ranges, total=len(keys))

    def page(self, within: KeyRange, after: Key | None) -> Iterator[Any]:
        for key in self._keys(within, after):
            self._taken = key
            if key in self.values:
                yield self.values[key]

    def take_key(self, row: Any) -> Any:
        return self._taken

    def _keys(self, within: KeyRange, after: Key | None) -> builtins.list[Any]:
        """The keys of the next page."""
        assert within.lower is not None and within.upper is not None
        lower, upper = within.lower[0], within.upper[0]
        found = [
            key
            for key in sorted(self.values)
            if key >= lower and (key < upper or (within.closed and key == upper)) and (after is None or key > after[0])
        ]
        return found[: self.page_size]

    def find(self, key: Key) -> Any | None:
        return self.values.get(key[-1])
