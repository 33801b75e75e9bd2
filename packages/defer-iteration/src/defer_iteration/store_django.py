"""Iterations in a Django database, in the transactions of its alias."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F, QuerySet

from . import columns, models, rules
from .base import Fault
from .iteration import Iteration, IterationState, QuarantinedRow
from .keeping import KeepingStore
from .shard import Shard, Stalled

_BATCH = 500
"""Iterations that one query asks after."""


class DjangoIterationStore(KeepingStore):
    """Keeps iterations in the tables of `defer_iteration` on one alias.

    A row is held by an UPDATE that changes nothing: SQLite has no SELECT FOR UPDATE, and wants the write first."""

    def __init__(self, alias: str = "default") -> None:
        self.alias = alias

    def transaction(self) -> AbstractContextManager[Any]:
        return transaction.atomic(using=self.alias)

    def in_transaction(self) -> bool:
        return transaction.get_connection(self.alias).in_atomic_block

    def is_spoilt(self) -> bool:
        return transaction.get_connection(self.alias).needs_rollback

    def fault(self, error: Exception) -> Fault | None:
        """Constraints may be looked at only by the commit."""
        return Fault.CONTENT if isinstance(error, IntegrityError) else None

    def _iterations(self, iteration_id: str) -> QuerySet[models.Iteration]:
        return models.Iteration.objects.using(self.alias).filter(pk=iteration_id)

    def _shard(self, iteration_id: str, index: int) -> QuerySet[models.Shard]:
        return models.Shard.objects.using(self.alias).filter(pk=columns.shard_id(iteration_id, index))

    def _shards(self, iteration_id: str) -> QuerySet[models.Shard]:
        return models.Shard.objects.using(self.alias).filter(iteration=iteration_id)

    def _quarantined(self, iteration_id: str) -> QuerySet[models.QuarantinedRow]:
        return models.QuarantinedRow.objects.using(self.alias).filter(iteration=iteration_id)

    # --- rows that are held -------------------------------------------------------------------------------------------

    def held_iteration(self, iteration_id: str) -> Iteration | None:
        return self.get(iteration_id) if self._iterations(iteration_id).update(state=F("state")) else None

    def held_shard(self, iteration_id: str, index: int) -> Shard | None:
        found = self._shard(iteration_id, index)
        return columns.as_shard(found.get()) if found.update(fence=F("fence")) else None

    def held_open(self, iteration_id: str, after: int, limit: int | None) -> builtins.list[Shard]:
        found = self._shards(iteration_id).filter(done=False, index__gt=after)
        found.update(fence=F("fence"))
        return [columns.as_shard(row) for row in found.order_by("index")[:limit]]

    # --- writes -------------------------------------------------------------------------------------------------------

    def create(self, iteration: Iteration) -> None:
        columns.new_iteration(iteration).save(using=self.alias, force_insert=True)

    def add_shards(self, shards: Sequence[Shard]) -> None:
        models.Shard.objects.using(self.alias).bulk_create([columns.new_shard(shard) for shard in shards])

    def write(self, noun: Iteration | Shard) -> None:
        if isinstance(noun, Iteration):
            self._iterations(noun.id).update(**columns.of_iteration(noun))
        else:
            self._shard(noun.iteration_id, noun.index).update(**columns.of_shard(noun))

    def quarantine(self, row: QuarantinedRow) -> None:
        rows = models.QuarantinedRow.objects.using(self.alias)
        rows.update_or_create(id=columns.quarantine_id(row), defaults=columns.of_quarantined(row))

    def settle_quarantined(self, row: QuarantinedRow, *, error: str | None) -> None:
        mine = models.QuarantinedRow.objects.using(self.alias).filter(pk=columns.quarantine_id(row))
        if error is None:
            mine.delete()
        else:
            mine.update(error=error, attempts=row.attempts + 1)

    def delete(self, iteration_id: str) -> None:
        with self.transaction():
            self._iterations(iteration_id).delete()
            self._shards(iteration_id).delete()
            self._quarantined(iteration_id).delete()

    # --- reads --------------------------------------------------------------------------------------------------------

    def get(self, iteration_id: str) -> Iteration | None:
        row = self._iterations(iteration_id).first()
        return None if row is None else columns.as_iteration(row)

    def state(self, iteration_id: str) -> IterationState | None:
        state = self._iterations(iteration_id).values_list("state", flat=True).first()
        return None if state is None else IterationState(state)

    def list(self, *, limit: int = 100, after: str = "") -> builtins.list[Iteration]:
        rows = models.Iteration.objects.using(self.alias).filter(pk__gt=after).order_by("pk")[:limit]
        return [columns.as_iteration(row) for row in rows]

    def shards(self, iteration_id: str) -> builtins.list[Shard]:
        return sorted((columns.as_shard(row) for row in self._shards(iteration_id)), key=lambda each: each.index)

    def has_open(self, iteration_id: str, *, besides: int | None = None) -> bool:
        """At most two are read: a condition on the index would need an index of Datastore's own."""
        found = self._shards(iteration_id).filter(done=False).values_list("pk", flat=True)[:2]
        return any(pk != columns.shard_id(iteration_id, -1 if besides is None else besides) for pk in found)

    def quarantined(self, iteration_id: str) -> builtins.list[QuarantinedRow]:
        rows = sorted(self._quarantined(iteration_id), key=lambda row: (row.index, row.pk))
        return [columns.as_quarantined(row) for row in rows]

    def stalled(self, *, now: float, limit: int) -> builtins.list[Stalled]:
        iterations = models.Iteration.objects.using(self.alias)
        whole = iterations.filter(state__in=[state.value for state in rules.WHOLE], due__lte=now)
        found: builtins.list[Iteration | Shard]
        found = [columns.as_iteration(row) for row in whole.order_by("due")[:limit]]
        running = iterations.filter(state=IterationState.RUNNING.value)
        ids = list(running.values_list("pk", flat=True))
        for start in range(0, len(ids), _BATCH):
            late = models.Shard.objects.using(self.alias).filter(
                iteration__in=ids[start : start + _BATCH], done=False, due__lte=now
            )
            found += [columns.as_shard(row) for row in late.order_by("due")[:limit]]
        return [rules.stalled(each) for each in sorted(found, key=lambda each: each.due)[:limit]]
