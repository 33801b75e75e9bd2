"""Iterations in a Django database, in the transactions of its alias."""

from __future__ import annotations

import builtins
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from django.db import IntegrityError, connections, transaction
from django.db.models import Exists, F, OuterRef, QuerySet

from .. import models
from ..model import transitions
from ..model.iteration import Iteration, IterationState, QuarantinedRow
from ..model.shard import Shard, Stalled
from . import columns
from .base import Fault, Result
from .faults import fault_of
from .locking import LockingStore
from .retention import retention

_BATCH = 500
"""How many iterations one query is about."""
TRIES = 3
"""How often a transaction is begun that conflicts with concurrent ones."""
_OVER = [state.value for state in IterationState if state.is_over]
FIRST_PAUSE = 0.02
"""About how many seconds it waits before it is begun again; the pauses double."""


class DjangoIterationStore(LockingStore):
    """Stores iterations in the tables of `defer_iteration` on one alias.

    A row is locked by an UPDATE that changes nothing: SQLite has no SELECT FOR UPDATE, and needs the write first."""

    def __init__(self, alias: str = "default") -> None:
        self.alias = alias

    def transaction(self) -> AbstractContextManager[Any]:
        return transaction.atomic(using=self.alias)

    def transact(self, work: Callable[[], Result]) -> Result:
        for tries in range(1, TRIES):
            try:
                return super().transact(work)
            except Exception as error:
                if self.in_transaction() or self.fault(error) is not Fault.CONTENTION:
                    raise
                time.sleep(random.uniform(0.5, 1.0) * FIRST_PAUSE * 2**tries)
        return super().transact(work)

    def in_transaction(self) -> bool:
        return transaction.get_connection(self.alias).in_atomic_block

    def is_spoilt(self) -> bool:
        return transaction.get_connection(self.alias).needs_rollback

    def fault(self, error: Exception) -> Fault | None:
        return fault_of(error)

    def reconnect(self) -> bool:
        if self.in_transaction():
            return False
        for connection in connections.all(initialized_only=True):  # callbacks may use others
            connection.close_if_unusable_or_obsolete()
        return True

    def _iterations(self, iteration_id: str) -> QuerySet[models.Iteration]:
        return models.Iteration.objects.using(self.alias).filter(pk=iteration_id)

    def _shard(self, iteration_id: str, index: int) -> QuerySet[models.Shard]:
        return models.Shard.objects.using(self.alias).filter(pk=columns.shard_id(iteration_id, index))

    def _shards(self, iteration_id: str) -> QuerySet[models.Shard]:
        return models.Shard.objects.using(self.alias).filter(iteration=iteration_id)

    def _quarantined(self, iteration_id: str) -> QuerySet[models.QuarantinedRow]:
        return models.QuarantinedRow.objects.using(self.alias).filter(iteration=iteration_id)

    def _quarantined_row(self, row: QuarantinedRow) -> QuerySet[models.QuarantinedRow]:
        return models.QuarantinedRow.objects.using(self.alias).filter(pk=columns.quarantine_id(row))

    # --- locks --------------------------------------------------------------------------------------------------------

    def lock_iteration(self, iteration_id: str) -> Iteration | None:
        return self.get(iteration_id) if self._iterations(iteration_id).update(state=F("state")) else None

    def lock_shard(self, iteration_id: str, index: int) -> Shard | None:
        found = self._shard(iteration_id, index)
        return columns.as_shard(found.get()) if found.update(fence=F("fence")) else None

    def lock_quarantined(self, row: QuarantinedRow) -> QuarantinedRow | None:
        found = self._quarantined_row(row)
        return columns.as_quarantined(found.get()) if found.update(attempts=F("attempts")) else None

    def lock_open(self, iteration_id: str, after: int, limit: int | None) -> builtins.list[Shard]:
        found = self._shards(iteration_id).filter(done=False, index__gt=after)
        found.update(fence=F("fence"))
        return [columns.as_shard(row) for row in found.order_by("index")[:limit]]

    def lock_done(self, iteration_id: str, limit: int) -> builtins.list[Shard]:
        done = self._shards(iteration_id).filter(done=True).order_by("due")
        found = models.Shard.objects.using(self.alias).filter(
            pk__in=list(done.values_list("pk", flat=True)[:limit]), done=True
        )
        found.update(fence=F("fence"))
        return [columns.as_shard(row) for row in found.order_by("index")]

    # --- writes -------------------------------------------------------------------------------------------------------

    def create(self, iteration: Iteration) -> Iteration | None:
        try:
            with self.transaction():  # a savepoint, if the caller has a transaction
                columns.new_iteration(iteration).save(using=self.alias, force_insert=True)
        except IntegrityError:
            there = self.get(iteration.id)
            if there is None:
                raise
            return there
        return None

    def add_shards(self, shards: Sequence[Shard]) -> None:
        models.Shard.objects.using(self.alias).bulk_create([columns.new_shard(shard) for shard in shards])

    def drop_shards(self, iteration_id: str) -> None:
        self._shards(iteration_id).delete()

    def write(self, noun: Iteration | Shard) -> None:
        if isinstance(noun, Iteration):
            self._iterations(noun.id).update(**columns.of_iteration(noun))
        else:
            self._shard(noun.iteration_id, noun.index).update(**columns.of_shard(noun))

    def quarantine(self, row: QuarantinedRow) -> None:
        rows = models.QuarantinedRow.objects.using(self.alias)
        rows.update_or_create(id=columns.quarantine_id(row), defaults=columns.of_quarantined(row))

    def forget_quarantined(self, row: QuarantinedRow) -> None:
        self._quarantined_row(row).delete()

    def delete(self, iteration_id: str) -> None:
        with self.transaction():
            self._iterations(iteration_id).delete()
            self.drop_shards(iteration_id)
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

    def shard(self, iteration_id: str, index: int) -> Shard | None:
        row = self._shard(iteration_id, index).first()
        return None if row is None else columns.as_shard(row)

    def shards(self, iteration_id: str) -> builtins.list[Shard]:
        return sorted((columns.as_shard(row) for row in self._shards(iteration_id)), key=lambda each: each.index)

    def has_open(self, iteration_id: str, *, besides: int | None = None) -> bool:
        """Read two shards at most: a condition on `index` would need an index of its own on Datastore."""
        found = self._shards(iteration_id).filter(done=False).values_list("pk", flat=True)[:2]
        return any(pk != columns.shard_id(iteration_id, -1 if besides is None else besides) for pk in found)

    def slots(self, iteration_id: str) -> tuple[int, int]:
        found = self._shards(iteration_id)
        if not found.filter(done=True).exists():
            return 0, 0
        return found.filter(done=True).count(), found.filter(done=False).count()

    def quarantined(self, iteration_id: str) -> builtins.list[QuarantinedRow]:
        rows = sorted(self._quarantined(iteration_id), key=lambda row: (row.index, row.pk))
        return [columns.as_quarantined(row) for row in rows]

    def stalled(self, *, now: float, limit: int) -> builtins.list[Stalled]:
        iterations = models.Iteration.objects.using(self.alias)
        whole = iterations.filter(state__in=[state.value for state in transitions.WHOLE], due__lte=now)
        found: builtins.list[Iteration | Shard]
        found = [columns.as_iteration(row) for row in whole.order_by("due")[:limit]]
        running = iterations.filter(state=IterationState.RUNNING.value)
        ids = list(running.values_list("pk", flat=True))
        for start in range(0, len(ids), _BATCH):
            late = models.Shard.objects.using(self.alias).filter(
                iteration__in=ids[start : start + _BATCH], done=False, due__lte=now
            )
            found += [columns.as_shard(row) for row in late.order_by("due")[:limit]]
        return [transitions.as_stalled(each) for each in sorted(found, key=lambda each: each.due)[:limit]]

    # --- history ------------------------------------------------------------------------------------------------------

    def history(self) -> float | None:
        return retention()

    def ended(self, *, before: float, limit: int) -> builtins.list[str]:
        quarantined = models.QuarantinedRow.objects.using(self.alias).filter(iteration=OuterRef("pk"))
        found = self._named().filter(state__in=_OVER, finished__lt=before).exclude(Exists(quarantined))
        return list(found.order_by("finished").values_list("pk", flat=True)[:limit])

    def _named(self) -> QuerySet[models.Iteration]:
        return models.Iteration.objects.using(self.alias).filter(name__gt="")
