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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from defer_core.stores.memory import MemoryStore

from . import rules
from .iteration import Iteration, IterationState, QuarantinedRow
from .keeping import KeepingStore
from .rows import Rows, Split
from .shard import Key, KeyRange, Shard, Stalled

_ITERATIONS, _SHARDS, _QUARANTINED = "iterations", "shards", "quarantined rows"


class MemoryIterationStore(KeepingStore):
    """Keeps iterations beside the records of a MemoryStore."""

    def __init__(self, tasks: MemoryStore) -> None:
        self.tasks = tasks
        self.alias = tasks.alias

    def transaction(self) -> AbstractContextManager[Any]:
        return self.tasks.transaction()

    def in_transaction(self) -> bool:
        return self.tasks.in_transaction()

    # --- rows that are held -------------------------------------------------------------------------------------------

    def _locked(self, table: str, key: str) -> Any | None:
        self.tasks.lock_row(table, key)
        return self.tasks.rows(table).get(key)

    def held_iteration(self, iteration_id: str) -> Iteration | None:
        iteration: Iteration | None = self._locked(_ITERATIONS, iteration_id)
        return iteration

    def held_shard(self, iteration_id: str, index: int) -> Shard | None:
        shard: Shard | None = self._locked(_SHARDS, _shard_key(iteration_id, index))
        return shard

    def held_open(self, iteration_id: str, after: int, limit: int | None) -> builtins.list[Shard]:
        held = (self.held_shard(iteration_id, each.index) for each in self.shards(iteration_id) if each.index > after)
        return [shard for shard in held if shard is not None and not shard.done][:limit]

    # --- writes -------------------------------------------------------------------------------------------------------

    def create(self, iteration: Iteration) -> None:
        self.write(iteration)

    def add_shards(self, shards: Sequence[Shard]) -> None:
        self.tasks.write_rows(_SHARDS, {_shard_key(each.iteration_id, each.index): each for each in shards})

    def write(self, noun: Iteration | Shard) -> None:
        if isinstance(noun, Iteration):
            self.tasks.write_rows(_ITERATIONS, {noun.id: noun})
        else:
            self.add_shards([noun])

    def quarantine(self, row: QuarantinedRow) -> None:
        self.tasks.write_rows(_QUARANTINED, {_quarantine_key(row): row})

    def settle_quarantined(self, row: QuarantinedRow, *, error: str | None) -> None:
        now = self.tasks.rows(_QUARANTINED).get(_quarantine_key(row))
        if now is not None:
            after = None if error is None else replace(now, error=error, attempts=now.attempts + 1)
            self.tasks.write_rows(_QUARANTINED, {_quarantine_key(row): after})

    def delete(self, iteration_id: str) -> None:
        with self.transaction():
            shards = {_shard_key(iteration_id, each.index): None for each in self.shards(iteration_id)}
            rows = {_quarantine_key(each): None for each in self.quarantined(iteration_id)}
            self.held_iteration(iteration_id)
            self.tasks.write_rows(_ITERATIONS, {iteration_id: None})
            self.tasks.write_rows(_SHARDS, shards)
            self.tasks.write_rows(_QUARANTINED, rows)

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

    def state(self, iteration_id: str) -> IterationState | None:
        iteration = self.get(iteration_id)
        return None if iteration is None else iteration.state

    def has_open(self, iteration_id: str, *, besides: int | None = None) -> bool:
        return any(not each.done and each.index != besides for each in self.shards(iteration_id))

    def stalled(self, *, now: float, limit: int) -> builtins.list[Stalled]:
        iterations: dict[str, Iteration] = dict(self.tasks.rows(_ITERATIONS))
        running = {key for key, each in iterations.items() if each.state is IterationState.RUNNING}
        shards: dict[str, Shard] = dict(self.tasks.rows(_SHARDS))
        found: builtins.list[Iteration | Shard] = [
            *(each for each in iterations.values() if each.state in rules.WHOLE),
            *(each for each in shards.values() if each.iteration_id in running and not each.done),
        ]
        late = sorted((each for each in found if each.due <= now), key=lambda each: each.due)
        return [rules.stalled(each) for each in late[:limit]]


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
