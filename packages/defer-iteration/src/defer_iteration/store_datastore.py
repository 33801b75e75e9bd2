"""Iterations as entities of a Datastore that Django sees as a database (`gcloudc`).

There, a condition on an UPDATE holds in a transaction only, and only first columns of an index can be asked for: so
each change reads its entity by key in the transaction, and looks. Of two transactions in each other's way one is
Aborted: its task fails, and is delivered again.
"""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import models
from .base import Completion
from .iteration import Iteration, IterationState, QuarantinedRow
from .shard import Shard, Stalled
from .store_django import DjangoIterationStore, as_shard, shard_id

_WHOLE = (IterationState.NEW.value, IterationState.FINALIZING.value)


class DatastoreIterationStore(DjangoIterationStore):
    """Keeps iterations in the kinds of `defer_iteration` on one alias."""

    def _lock(self, iteration_id: str) -> models.Iteration | None:
        return self._iterations(iteration_id).first()

    def _shard(self, iteration_id: str, index: int) -> models.Shard | None:
        return models.Shard.objects.using(self.alias).filter(pk=shard_id(iteration_id, index)).first()

    def _change_iteration(self, iteration_id: str, changes: Mapping[str, Any], **expected: Any) -> bool:
        with self.transaction():
            row = self._iterations(iteration_id).first()
            return _has(row, expected) and bool(self._iterations(iteration_id).update(**changes))

    def _change_shard(self, iteration_id: str, index: int, changes: Mapping[str, Any], **expected: Any) -> bool:
        with self.transaction():
            row = self._shard(iteration_id, index)
            mine = models.Shard.objects.using(self.alias).filter(pk=shard_id(iteration_id, index))
            return _has(row, expected) and bool(mine.update(**changes))

    def _open_shards(self, iteration_id: str) -> builtins.list[models.Shard]:
        return sorted((row for row in self._shards(iteration_id) if not row.done), key=lambda row: row.index)

    def claim(
        self, iteration_id: str, index: int, generation: int, *, due: Callable[[int], float]
    ) -> tuple[Iteration, Shard] | None:
        with self.transaction():
            row, iteration = self._shard(iteration_id, index), self.get(iteration_id)
            if iteration is None or iteration.state is not IterationState.RUNNING:
                return None
            if row is None or row.generation != generation or row.done:
                return None
            row.fence, row.due = row.fence + 1, due(row.wakes)
            self._change_shard(iteration_id, index, {"fence": row.fence, "due": row.due})
            return iteration, as_shard(row)

    def complete(self, shard: Shard, quarantine: Sequence[QuarantinedRow] = (), *, due: float) -> Completion:
        """The shards are read before one is written: `gcloudc` refuses a query that a write has come before."""
        with self.transaction():
            iteration = self._lock(shard.iteration_id)
            others = [row for row in self._shards(shard.iteration_id) if row.index != shard.index]
            if iteration is None or not self._save(shard, quarantine, done=True):
                return Completion.LOST
            if iteration.state != IterationState.RUNNING.value or not all(row.done for row in others):
                return Completion.OPEN
            counters = [*(row.counters for row in others), json.dumps(dict(shard.counters))]
            self._finalizing(iteration, counters, due=due)
            return Completion.LAST

    def reopen(self, iteration_id: str, *, due: float) -> builtins.list[Shard]:
        with self.transaction():
            rows = self._open_shards(iteration_id)
            for row in rows:
                row.generation, row.due, row.attempts, row.wakes = row.generation + 1, due, 0, 0
                changes = {"generation": row.generation, "due": due, "attempts": 0, "wakes": 0}
                self._change_shard(iteration_id, row.index, changes)
            return [as_shard(row) for row in rows]

    def shards(self, iteration_id: str) -> builtins.list[Shard]:
        return sorted((as_shard(row) for row in self._shards(iteration_id)), key=lambda each: each.index)

    def stalled(self, *, now: float, limit: int) -> builtins.list[Stalled]:
        found = []
        for row in models.Iteration.objects.using(self.alias).filter(state__in=_WHOLE):
            if row.due <= now:
                found.append(Stalled(iteration_id=row.id, generation=row.generation, due=row.due, wakes=row.wakes))
        for iteration in models.Iteration.objects.using(self.alias).filter(state=IterationState.RUNNING.value):
            found += [
                Stalled(
                    iteration_id=row.iteration, index=row.index, generation=row.generation, due=row.due, wakes=row.wakes
                )
                for row in self._open_shards(iteration.id)
                if row.due <= now
            ]
        return sorted(found, key=lambda each: each.due)[:limit]


def _has(row: Any, expected: Mapping[str, Any]) -> bool:
    return row is not None and all(getattr(row, name) == value for name, value in expected.items())
