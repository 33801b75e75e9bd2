"""Iterations in this process's memory, in the transactions of a MemoryStore: for simulations and tests.

Transactions are READ COMMITTED, as in PostgreSQL: every read sees what is committed by then and the caller's own
writes, so that two last shards can each see the other one open; a write waits for the transaction that has locked the
row (`tasks.wait` is called meanwhile), and then sees the row as it is.

    tasks = MemoryStore()
    store = MemoryIterationStore(tasks)
    with in_memory(store=tasks), stores.in_use(store):                     # defer_core.testing, defer_iteration.stores
        defer_iteration_with_finalize(my_rows, callback, finalize, _shards=3)
        drain()

where `my_rows` is a function at the top of a module that returns Rows, for example `MemoryRows(a_dict)`.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any

from defer_core.testing import MemoryStore

from ..model import transitions
from ..model.iteration import Iteration, IterationState, QuarantinedRow
from ..model.shard import Shard, Stalled
from .locking import LockingStore

_ITERATIONS, _SHARDS, _QUARANTINED = "iterations", "shards", "quarantined rows"


class MemoryIterationStore(LockingStore):
    """Stores iterations beside the records of a MemoryStore."""

    def __init__(self, tasks: MemoryStore) -> None:
        self.tasks = tasks
        self.alias = tasks.alias

    def transaction(self) -> AbstractContextManager[Any]:
        return self.tasks.transaction()

    def in_transaction(self) -> bool:
        return self.tasks.in_transaction()

    # --- locks --------------------------------------------------------------------------------------------------------

    def _lock(self, table: str, key: str) -> Any | None:
        self.tasks.lock_row(table, key)
        return self.tasks.rows(table).get(key)

    def lock_iteration(self, iteration_id: str) -> Iteration | None:
        iteration: Iteration | None = self._lock(_ITERATIONS, iteration_id)
        return iteration

    def lock_shard(self, iteration_id: str, index: int) -> Shard | None:
        shard: Shard | None = self._lock(_SHARDS, _shard_key(iteration_id, index))
        return shard

    def lock_quarantined(self, row: QuarantinedRow) -> QuarantinedRow | None:
        held: QuarantinedRow | None = self._lock(_QUARANTINED, _quarantine_key(row))
        return held

    def lock_open(self, iteration_id: str, after: int, limit: int | None) -> builtins.list[Shard]:
        held = (self.lock_shard(iteration_id, each.index) for each in self.shards(iteration_id) if each.index > after)
        return [shard for shard in held if shard is not None and not shard.done][:limit]

    def lock_done(self, iteration_id: str, limit: int) -> builtins.list[Shard]:
        held = (self.lock_shard(iteration_id, each.index) for each in self.shards(iteration_id) if each.done)
        return list(islice((shard for shard in held if shard is not None and shard.done), limit))

    # --- writes -------------------------------------------------------------------------------------------------------

    def create(self, iteration: Iteration) -> Iteration | None:
        with self.transaction():
            there = self.lock_iteration(iteration.id)
            if there is None:
                self.write(iteration)
            return there

    def add_shards(self, shards: Sequence[Shard]) -> None:
        self.tasks.write_rows(_SHARDS, {_shard_key(each.iteration_id, each.index): each for each in shards})

    def drop_shards(self, iteration_id: str) -> None:
        """Wait for who has locked a shard, as a DELETE does: else its write would come after."""
        keys = [_shard_key(iteration_id, each.index) for each in self.shards(iteration_id)]
        for key in keys:
            self._lock(_SHARDS, key)
        self.tasks.write_rows(_SHARDS, dict.fromkeys(keys))

    def write(self, noun: Iteration | Shard) -> None:
        if isinstance(noun, Iteration):
            self.tasks.write_rows(_ITERATIONS, {noun.id: noun})
        else:
            self.add_shards([noun])

    def quarantine(self, row: QuarantinedRow) -> None:
        self.tasks.write_rows(_QUARANTINED, {_quarantine_key(row): row})

    def forget_quarantined(self, row: QuarantinedRow) -> None:
        self.tasks.write_rows(_QUARANTINED, {_quarantine_key(row): None})

    def delete(self, iteration_id: str) -> None:
        with self.transaction():
            rows = {_quarantine_key(each): None for each in self.quarantined(iteration_id)}
            self.lock_iteration(iteration_id)
            self.tasks.write_rows(_ITERATIONS, {iteration_id: None})
            self.drop_shards(iteration_id)
            self.tasks.write_rows(_QUARANTINED, rows)

    # --- reads --------------------------------------------------------------------------------------------------------

    def get(self, iteration_id: str) -> Iteration | None:
        return self.tasks.rows(_ITERATIONS).get(iteration_id)

    def list(self, *, limit: int = 100, after: str = "") -> builtins.list[Iteration]:
        found = sorted(self.tasks.rows(_ITERATIONS).values(), key=lambda each: each.id)
        return [each for each in found if each.id > after][:limit]

    def shard(self, iteration_id: str, index: int) -> Shard | None:
        return self.tasks.rows(_SHARDS).get(_shard_key(iteration_id, index))

    def shards(self, iteration_id: str) -> builtins.list[Shard]:
        found = [each for each in self.tasks.rows(_SHARDS).values() if each.iteration_id == iteration_id]
        return sorted(found, key=lambda each: each.index)

    def quarantined(self, iteration_id: str) -> builtins.list[QuarantinedRow]:
        found = [each for each in self.tasks.rows(_QUARANTINED).values() if each.iteration_id == iteration_id]
        return sorted(found, key=lambda each: (each.index, repr(each.key)))

    def state(self, iteration_id: str) -> IterationState | None:
        iteration = self.get(iteration_id)
        return None if iteration is None else iteration.state

    def has_open(self, iteration_id: str, *, besides: int | None = None) -> bool:
        return any(not each.done and each.index != besides for each in self.shards(iteration_id))

    def slots(self, iteration_id: str) -> tuple[int, int]:
        done = [each.done for each in self.shards(iteration_id)]
        return (sum(done), done.count(False)) if any(done) else (0, 0)

    def stalled(self, *, now: float, limit: int) -> builtins.list[Stalled]:
        iterations: dict[str, Iteration] = dict(self.tasks.rows(_ITERATIONS))
        running = {key for key, each in iterations.items() if each.state is IterationState.RUNNING}
        shards: dict[str, Shard] = dict(self.tasks.rows(_SHARDS))
        found: builtins.list[Iteration | Shard] = [
            *(each for each in iterations.values() if each.state in transitions.WHOLE),
            *(each for each in shards.values() if each.iteration_id in running and not each.done),
        ]
        late = sorted((each for each in found if each.due <= now), key=lambda each: each.due)
        return [transitions.as_stalled(each) for each in late[:limit]]

    def ended(self, *, before: float, limit: int) -> builtins.list[str]:
        named: builtins.list[Iteration] = [each for each in self.tasks.rows(_ITERATIONS).values() if each.name]
        return [each.id for each in transitions.ended(named, before) if not self.quarantined(each.id)][:limit]


def _shard_key(iteration_id: str, index: int) -> str:
    return f"{iteration_id}-{index}"


def _quarantine_key(row: QuarantinedRow) -> str:
    return f"{row.iteration_id}-{row.key!r}"
