"""Iterations as entities of a Datastore that Django sees as a database (`gcloudc`).

What a transaction has read is held there by the commit: of two in each other's way one is Aborted, and begun again. A
commit writes 500 entities at the most, so that more shards than PAGE are written, reopened and deleted by pages, and a
page of rows under `_atomic` ends where its callbacks have written FULL. `gcloudc` keeps writes until the commit: in a
transaction keys are read as they were when it began or as it has written them, and it refuses queries about those.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

from django.db import OperationalError, ProgrammingError, connections
from django.db.models import QuerySet

from defer_django.datastore import begun_again

from . import columns, models, rules
from .base import Fault
from .errors import FenceLostError
from .iteration import Iteration, IterationState
from .shard import Shard, Stalled
from .store_django import DjangoIterationStore

PAGE = 150
"""Shards of one transaction: with their tasks, and up to a hundred deletes that ride along, 500 writes are not
reached."""
ATOMIC_ROWS = 100
"""Rows of one transaction: each is read in it, and nobody else may change it meanwhile."""
FULL = 250
"""Writes of callbacks after which their transaction takes no further row: one that writes as many again still fits."""

Result = TypeVar("Result")


class DatastoreIterationStore(DjangoIterationStore):
    """Keeps iterations in the kinds of `defer_iteration` on one alias."""

    page: ClassVar[int | None] = PAGE
    atomic_rows: ClassVar[int] = ATOMIC_ROWS

    def transact(self, work: Callable[[], Result]) -> Result:
        transact = super().transact
        return transact(work) if self.in_transaction() else begun_again(lambda: transact(work))

    def is_full(self) -> bool:
        """Entities that `gcloudc` has not handed to the client yet, and those that it has."""
        connection = connections[self.alias].connection
        return len(connection._staged_writes) + len(connection._txn.mutations) >= FULL

    def fault(self, error: Exception) -> Fault | None:
        from google.api_core.exceptions import InvalidArgument

        if isinstance(error, OperationalError):
            return Fault.CONTENTION
        if isinstance(error.__cause__, InvalidArgument):  # too large, or older than a transaction may be
            return Fault.CONTENT
        return Fault.EARLIER_WRITES if isinstance(error, ProgrammingError) else super().fault(error)

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
