"""Iterations as entities of a Datastore that Django sees as a database (`gcloudc`).

The commit checks what its transaction has read: of two that conflict, one is aborted and begun again. A commit writes
at most 500 entities, so more shards than PAGE are written, renewed and deleted in pages, and a page of rows under
`_atomic` ends once its callbacks have made FULL writes. `gcloudc` delays writes until the commit: a transaction reads
keys as they were when it began or as it has written them, and refuses queries about the latter.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any, ClassVar, TypeVar

from django.db import OperationalError, ProgrammingError, connections
from django.db.models import QuerySet

from defer_django.datastore import begun_again

from .. import models
from ..errors import FenceLostError
from ..model import transitions
from ..model.iteration import Iteration, IterationState, QuarantinedRow
from ..model.shard import Shard, Stalled
from . import columns
from .base import Fault
from .django import DjangoIterationStore

PAGE = 150
"""How many shards one transaction moves: with their tasks, and up to a hundred deletes that are made along with them,
it stays below 500 writes."""
ATOMIC_ROWS = 100
"""How many rows one transaction passes: each is read in it, and no other transaction may change it meanwhile."""
FULL = 250
"""How many writes of callbacks end a transaction: one more row that writes as much again still fits."""

Result = TypeVar("Result")


class DatastoreIterationStore(DjangoIterationStore):
    """Stores iterations in the kinds of `defer_iteration` on one alias."""

    page: ClassVar[int | None] = PAGE
    atomic_rows: ClassVar[int] = ATOMIC_ROWS

    def transact(self, work: Callable[[], Result]) -> Result:
        def once() -> Result:
            with self.transaction():
                return work()

        return once() if self.in_transaction() else begun_again(once)

    def is_full(self) -> bool:
        """Count the entities that `gcloudc` has not handed to the client yet, and those that it has."""
        connection = connections[self.alias].connection
        return len(connection._staged_writes) + len(connection._txn.mutations) >= FULL

    def fault(self, error: Exception) -> Fault | None:
        from google.api_core.exceptions import InvalidArgument

        if isinstance(error, OperationalError):
            return Fault.CONTENTION
        if isinstance(error.__cause__, InvalidArgument):  # too large, or older than a transaction may be
            return Fault.CONTENT
        return Fault.EARLIER_WRITES if isinstance(error, ProgrammingError) else super().fault(error)

    # --- locks --------------------------------------------------------------------------------------------------------

    def lock_iteration(self, iteration_id: str) -> Iteration | None:
        return self.get(iteration_id)

    def lock_shard(self, iteration_id: str, index: int) -> Shard | None:
        return self.shard(iteration_id, index)

    def lock_quarantined(self, row: QuarantinedRow) -> QuarantinedRow | None:
        found = self._quarantined_row(row).first()
        return None if found is None else columns.as_quarantined(found)

    def lock_open(self, iteration_id: str, after: int, limit: int | None) -> builtins.list[Shard]:
        return [each for each in self.shards(iteration_id) if not each.done and each.index > after][:limit]

    def lock_done(self, iteration_id: str, limit: int) -> builtins.list[Shard]:
        keys = self._shards(iteration_id).filter(done=True).values_list("pk", flat=True)[:limit]
        found = [models.Shard.objects.using(self.alias).filter(pk=key).first() for key in list(keys)]
        return [columns.as_shard(row) for row in found if row is not None and row.done]

    # --- what is more than a commit takes -----------------------------------------------------------------------------

    def create(self, iteration: Iteration) -> Iteration | None:
        """Look by key first, so that of two commits one is aborted: there are no savepoints."""
        with self.transaction():
            return self.get(iteration.id) or super().create(iteration)

    def prepare(self, iteration: Iteration, shards: Sequence[Shard]) -> Sequence[Shard]:
        if len(shards) <= PAGE:
            return shards
        self._drop(self._shards(iteration.id))  # those of a plan that was superseded

        def add(page: Sequence[Shard]) -> None:
            if not transitions.may_plan(self.get(iteration.id), iteration):
                raise FenceLostError(f"Iteration {iteration.id} ({iteration.label}): another attempt plans it.")
            self.add_shards(page)

        for start in range(0, len(shards), PAGE):
            self.transact(partial(add, shards[start : start + PAGE]))
        return ()

    def clear(self, iteration_id: str) -> None:
        self._drop(self._shards(iteration_id))
        self._drop(self._quarantined(iteration_id))

    def delete(self, iteration_id: str) -> None:
        if not self.in_transaction():
            self.clear(iteration_id)
        super().delete(iteration_id)

    def delete_shards(self, iteration: Iteration) -> None:
        self._drop(self._shards(iteration.id), lambda: transitions.is_over(self.get(iteration.id), iteration))

    def forget(self, iteration_id: str, *, ended_before: float | None = None) -> bool:
        def allowed() -> bool:
            return self.may_forget(self.get(iteration_id), ended_before)

        if not self.in_transaction():
            self._drop(self._shards(iteration_id), allowed)
            if ended_before is None:
                self._drop(self._quarantined(iteration_id), allowed)
        return super().forget(iteration_id, ended_before=ended_before)

    def _drop(self, found: QuerySet[Any], allowed: Callable[[], bool] = lambda: True) -> None:
        """Delete what is found, page by page, as long as that is allowed."""
        rows = found.model._base_manager.using(self.alias)

        def drop(keys: Sequence[str]) -> bool:
            return allowed() and bool(rows.filter(pk__in=keys).delete())

        while keys := list(found.values_list("pk", flat=True)[:PAGE]):
            if not self.transact(partial(drop, keys)):
                return

    def stalled(self, *, now: float, limit: int) -> builtins.list[Stalled]:
        """Filter by `due` here: a query by it and other properties would need an index that the site has to declare."""
        iterations = models.Iteration.objects.using(self.alias)
        found: builtins.list[Iteration | Shard] = []
        for state in transitions.WHOLE:
            found += [columns.as_iteration(row) for row in iterations.filter(state=state.value)]
        for iteration in iterations.filter(state=IterationState.RUNNING.value):
            found += [columns.as_shard(row) for row in self._shards(iteration.id).filter(done=False)]
        late = sorted((each for each in found if each.due <= now), key=lambda each: each.due)
        return [transitions.as_stalled(each) for each in late[:limit]]

    def ended(self, *, before: float, limit: int) -> builtins.list[str]:
        late = transitions.ended(map(columns.as_iteration, self._named()), before)
        return list(islice((each.id for each in late if not self._quarantined(each.id)[:1]), limit))
