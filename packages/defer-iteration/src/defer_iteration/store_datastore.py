"""Iterations as entities of a Datastore that Django sees as a database (`gcloudc`).

What a transaction has read is held there by the commit: of two in each other's way one is Aborted, and begun again. A
commit writes 500 entities at the most, so that more shards than PAGE are written, reopened and deleted by pages.
"""

from __future__ import annotations

import builtins
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

from django.db import OperationalError
from django.db.models import QuerySet

from . import columns, models, rules
from .errors import FenceLostError
from .iteration import Iteration, IterationState
from .shard import Shard, Stalled
from .store_django import DjangoIterationStore

PAGE = 150
"""Shards of one transaction: with their tasks, and up to a hundred deletes that ride along, 500 writes are not
reached."""
TRIES = 6
"""How often a transaction is begun."""

Result = TypeVar("Result")


class DatastoreIterationStore(DjangoIterationStore):
    """Keeps iterations in the kinds of `defer_iteration` on one alias."""

    supports_atomic: ClassVar[bool] = False
    page: ClassVar[int | None] = PAGE

    def transact(self, work: Callable[[], Result]) -> Result:
        for tries in range(1, TRIES):
            if self.in_transaction():
                break
            try:
                return super().transact(work)
            except OperationalError:
                time.sleep(random.uniform(0.5, 1.0) * 0.02 * 2**tries)
        return super().transact(work)

    # --- rows that are held -------------------------------------------------------------------------------------------

    def held_iteration(self, iteration_id: str) -> Iteration | None:
        return self.get(iteration_id)

    def held_shard(self, iteration_id: str, index: int) -> Shard | None:
        row = self._shard(iteration_id, index).first()
        return None if row is None else columns.as_shard(row)

    def held_open(self, iteration_id: str, after: int, limit: int | None) -> builtins.list[Shard]:
        return [each for each in self.shards(iteration_id) if not each.done and each.index > after][:limit]

    # --- what is more than a commit takes -----------------------------------------------------------------------------

    def prepare(self, iteration: Iteration, shards: Sequence[Shard]) -> Sequence[Shard]:
        if len(shards) <= PAGE:
            return shards
        self._drop(self._shards(iteration.id))  # those of a plan that was superseded
        for start in range(0, len(shards), PAGE):
            self.transact(lambda: self._add(iteration, shards[start : start + PAGE]))  # noqa: B023
        return ()

    def _add(self, iteration: Iteration, shards: Sequence[Shard]) -> None:
        if not rules.may_plan(self.get(iteration.id), iteration):
            raise FenceLostError(f"Iteration {iteration.id} is planned by somebody else.")
        self.add_shards(shards)

    def clear(self, iteration_id: str) -> None:
        self._drop(self._shards(iteration_id))
        self._drop(self._quarantined(iteration_id))

    def delete(self, iteration_id: str) -> None:
        if not self.in_transaction():
            self.clear(iteration_id)
        super().delete(iteration_id)

    def _drop(self, found: QuerySet[Any]) -> None:
        rows = found.model._base_manager.using(self.alias)
        while keys := list(found.values_list("pk", flat=True)[:PAGE]):
            self.transact(lambda: rows.filter(pk__in=keys).delete())

    def stalled(self, *, now: float, limit: int) -> builtins.list[Stalled]:
        """No condition on `due`, which together with others would need an index of the site's own."""
        iterations = models.Iteration.objects.using(self.alias)
        found: builtins.list[Iteration | Shard] = []
        for state in rules.WHOLE:
            found += [columns.as_iteration(row) for row in iterations.filter(state=state.value)]
        for iteration in iterations.filter(state=IterationState.RUNNING.value):
            found += [columns.as_shard(row) for row in self._shards(iteration.id).filter(done=False)]
        late = sorted((each for each in found if each.due <= now), key=lambda each: each.due)
        return [rules.stalled(each) for each in late[:limit]]
