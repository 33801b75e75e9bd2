"""Iterations in a Django database, in the transactions of its alias."""

from __future__ import annotations

import builtins
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from hashlib import blake2b
from typing import Any

from django.db import transaction
from django.db.models import F, QuerySet

from defer_core import clock, codec

from . import models
from .base import Completion, IterationStore
from .iteration import Iteration, IterationOptions, IterationState, QuarantinedRow
from .shard import Key, KeyRange, Shard, Stalled

_STOPPED = (IterationState.PAUSED, IterationState.HELD)
_BATCH = 30
"""Iterations that one query asks after: what Datastore takes in an IN."""


class DjangoIterationStore(IterationStore):
    """Keeps iterations in the tables of `defer_iteration` on one alias."""

    def __init__(self, alias: str = "default") -> None:
        self.alias = alias

    # --- transactions and tables --------------------------------------------------------------------------------------

    def transaction(self) -> AbstractContextManager[Any]:
        return transaction.atomic(using=self.alias)

    def in_transaction(self) -> bool:
        return transaction.get_connection(self.alias).in_atomic_block

    def _iterations(self, iteration_id: str) -> QuerySet[models.Iteration]:
        return models.Iteration.objects.using(self.alias).filter(pk=iteration_id)

    def _shards(self, iteration_id: str) -> QuerySet[models.Shard]:
        return models.Shard.objects.using(self.alias).filter(iteration=iteration_id)

    def _quarantined(self, iteration_id: str) -> QuerySet[models.QuarantinedRow]:
        return models.QuarantinedRow.objects.using(self.alias).filter(iteration=iteration_id)

    def _lock(self, iteration_id: str) -> models.Iteration | None:
        """The iteration, locked to the end of the transaction by a write that changes nothing."""
        if not self._iterations(iteration_id).update(state=F("state")):
            return None
        return self._iterations(iteration_id).get()

    def _change_iteration(self, iteration_id: str, changes: Mapping[str, Any], **expected: Any) -> bool:
        """Change columns of an iteration that has the expected ones; whether it did."""
        return bool(self._iterations(iteration_id).filter(**expected).update(**changes))

    def _change_shard(self, iteration_id: str, index: int, changes: Mapping[str, Any], **expected: Any) -> bool:
        """Change columns of a shard that has the expected ones; whether it did."""
        mine = self._shards(iteration_id).filter(pk=shard_id(iteration_id, index), **expected)
        return bool(mine.update(**changes))

    def _open_shards(self, iteration_id: str) -> builtins.list[models.Shard]:
        return list(self._shards(iteration_id).filter(done=False).order_by("index"))

    def _state(self, iteration_id: str) -> IterationState | None:
        state = self._iterations(iteration_id).values_list("state", flat=True).first()
        return None if state is None else IterationState(state)

    # --- the protocol's writes ----------------------------------------------------------------------------------------

    def create(self, iteration: Iteration) -> None:
        models.Iteration.objects.using(self.alias).create(
            id=iteration.id,
            job=iteration.job,
            options=json.dumps(asdict(iteration.options)),
            label=iteration.label[:500],
            state=iteration.state.value,
            due=iteration.due,
            created=iteration.created,
        )

    def plan(self, iteration_id: str, shards: Sequence[Shard], *, total: int | None) -> bool:
        with self.transaction():
            changes = {"state": IterationState.RUNNING.value, "total": total, "wakes": 0}
            if not self._change_iteration(iteration_id, changes, state=IterationState.NEW.value):
                return False
            models.Shard.objects.using(self.alias).bulk_create([_shard_row(shard) for shard in shards])
            return True

    def claim(
        self, iteration_id: str, index: int, generation: int, *, due: Callable[[int], float]
    ) -> tuple[Iteration, Shard] | None:
        open_shard = self._shards(iteration_id).filter(
            pk=shard_id(iteration_id, index), generation=generation, done=False
        )
        seen = open_shard.first()
        if seen is None or self._state(iteration_id) is not IterationState.RUNNING:
            return None
        with self.transaction():
            if not open_shard.update(fence=F("fence") + 1, due=due(seen.wakes)):
                return None
            shard, iteration = open_shard.get(), self.get(iteration_id)
        return None if iteration is None else (iteration, as_shard(shard))

    def claim_whole(self, iteration_id: str, state: IterationState, *, due: Callable[[int], float]) -> Iteration | None:
        seen = self.get(iteration_id)
        if seen is None or seen.state is not state:
            return None
        claimed = self._change_iteration(iteration_id, {"due": due(seen.wakes)}, state=state.value)
        return self.get(iteration_id) if claimed else None

    def checkpoint(self, shard: Shard, quarantine: Sequence[QuarantinedRow] = ()) -> IterationState | None:
        with self.transaction():
            if not self._save(shard, quarantine):
                return None
            return self._state(shard.iteration_id)

    def hand_over(self, shard: Shard, quarantine: Sequence[QuarantinedRow] = ()) -> IterationState | None:
        with self.transaction():
            if not self._save(shard, quarantine):
                return None
            state = self._state(shard.iteration_id)
            if state is IterationState.RUNNING:
                self._change_shard(shard.iteration_id, shard.index, {"generation": shard.generation + 1})
            return state

    def _save(self, shard: Shard, quarantine: Sequence[QuarantinedRow], **changes: Any) -> bool:
        mine = {"generation": shard.generation, "fence": shard.fence, "done": False}
        if not self._change_shard(shard.iteration_id, shard.index, {**_progress(shard), **changes}, **mine):
            return False
        rows = models.QuarantinedRow.objects.using(self.alias)
        for row in quarantine:
            rows.update_or_create(id=_quarantine_id(row), defaults=_quarantine_fields(row))
        return True

    def complete(self, shard: Shard, quarantine: Sequence[QuarantinedRow] = (), *, due: float) -> Completion:
        with self.transaction():
            iteration = self._lock(shard.iteration_id)
            if iteration is None or not self._save(shard, quarantine, done=True):
                return Completion.LOST
            if iteration.state != IterationState.RUNNING.value or not self._finish_set(iteration, due=due):
                return Completion.OPEN
            return Completion.LAST

    def _finish_set(self, iteration: models.Iteration, *, due: float) -> bool:
        """With the iteration locked: to `finalizing`, if no shard is open."""
        if self._open_shards(iteration.id):
            return False
        self._finalizing(iteration, (row.counters for row in self._shards(iteration.id)), due=due)
        return True

    def _finalizing(self, iteration: models.Iteration, counters: Iterable[str], *, due: float) -> None:
        """Merge the shards' counters, and move to `finalizing`, of a new generation."""
        total: Counter[str] = Counter()
        for each in counters:
            total.update(json.loads(each))
        self._iterations(iteration.id).update(
            state=IterationState.FINALIZING.value,
            counters=json.dumps(total),
            generation=iteration.generation + 1,
            due=due,
            wakes=0,
        )

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
            row = self._lock(iteration_id)
            if row is None or IterationState(row.state) not in when:
                return None
            before = _as_iteration(row)
            if to is IterationState.RUNNING:
                self._resume(row, due=due)
            else:
                resumes = (before.resumes or before.state).value if to in _STOPPED else ""
                finished = clock.now() if to.is_over else None
                self._iterations(iteration_id).update(state=to.value, resumes=resumes, reason=reason, finished=finished)
            return before

    def _resume(self, row: models.Iteration, *, due: float) -> None:
        state = row.resumes or row.state
        self._iterations(row.id).update(
            state=state, resumes="", reason="", generation=row.generation + 1, due=due, wakes=0
        )
        if state == IterationState.RUNNING.value:
            self._finish_set(self._iterations(row.id).get(), due=due)

    def reopen(self, iteration_id: str, *, due: float) -> builtins.list[Shard]:
        with self.transaction():
            still_open = self._shards(iteration_id).filter(done=False)
            still_open.update(generation=F("generation") + 1, due=due, attempts=0, wakes=0)
            return [as_shard(row) for row in still_open.order_by("index")]

    # --- the sweep ----------------------------------------------------------------------------------------------------

    def stalled(self, *, now: float, limit: int) -> builtins.list[Stalled]:
        whole = models.Iteration.objects.using(self.alias).filter(
            state__in=[IterationState.NEW.value, IterationState.FINALIZING.value], due__lte=now
        )
        found = [
            Stalled(iteration_id=row.id, generation=row.generation, due=row.due, wakes=row.wakes)
            for row in whole.order_by("due")[:limit]
        ]
        running = models.Iteration.objects.using(self.alias).filter(state=IterationState.RUNNING.value)
        ids = list(running.values_list("pk", flat=True))
        for start in range(0, len(ids), _BATCH):
            late = models.Shard.objects.using(self.alias).filter(
                iteration__in=ids[start : start + _BATCH], done=False, due__lte=now
            )
            for row in late.order_by("due")[:limit]:
                found.append(
                    Stalled(
                        iteration_id=row.iteration,
                        index=row.index,
                        generation=row.generation,
                        due=row.due,
                        wakes=row.wakes,
                    )
                )
        return sorted(found, key=lambda each: each.due)[:limit]

    def wake(self, stalled: Stalled, *, due: float) -> bool:
        seen = {"generation": stalled.generation, "due": stalled.due}
        changes = {"generation": stalled.generation + 1, "due": due, "wakes": stalled.wakes + 1}
        if stalled.index is not None:
            return self._change_shard(stalled.iteration_id, stalled.index, changes, done=False, **seen)
        states = (IterationState.NEW, IterationState.FINALIZING)
        return any(self._change_iteration(stalled.iteration_id, changes, state=each.value, **seen) for each in states)

    # --- reads --------------------------------------------------------------------------------------------------------

    def get(self, iteration_id: str) -> Iteration | None:
        row = self._iterations(iteration_id).first()
        return None if row is None else _as_iteration(row)

    def list(self, *, limit: int = 100, after: str = "") -> builtins.list[Iteration]:
        rows = models.Iteration.objects.using(self.alias).filter(pk__gt=after).order_by("pk")[:limit]
        return [_as_iteration(row) for row in rows]

    def shards(self, iteration_id: str) -> builtins.list[Shard]:
        return [as_shard(row) for row in self._shards(iteration_id).order_by("index")]

    def quarantined(self, iteration_id: str) -> builtins.list[QuarantinedRow]:
        return [
            QuarantinedRow(
                iteration_id=row.iteration,
                index=row.index,
                key=_unpack_key(row.key),
                error=row.error,
                attempts=row.attempts,
            )
            for row in self._quarantined(iteration_id).order_by("index", "pk")
        ]

    def settle_quarantined(self, row: QuarantinedRow, *, error: str | None) -> None:
        mine = self._quarantined(row.iteration_id).filter(pk=_quarantine_id(row))
        if error is None:
            mine.delete()
        else:
            mine.update(error=error, attempts=F("attempts") + 1)

    def delete(self, iteration_id: str) -> None:
        with self.transaction():
            self._iterations(iteration_id).delete()
            self._shards(iteration_id).delete()
            self._quarantined(iteration_id).delete()


# --- between rows and nouns -------------------------------------------------------------------------------------------


def shard_id(iteration_id: str, index: int) -> str:
    """The key of a shard's row."""
    return f"{iteration_id}-{index}"


def _quarantine_id(row: QuarantinedRow) -> str:
    """The same for the same row, so that a repeated quarantine is one."""
    return row.iteration_id + blake2b(codec.pack(row.key), digest_size=16).hexdigest()


def _quarantine_fields(row: QuarantinedRow) -> dict[str, Any]:
    return {
        "iteration": row.iteration_id,
        "index": row.index,
        "key": codec.pack(row.key),
        "error": row.error,
        "attempts": row.attempts,
    }


def _progress(shard: Shard) -> dict[str, Any]:
    """The columns that a checkpoint writes."""
    return {
        "position": None if shard.position is None else codec.pack(shard.position),
        "rows": shard.rows,
        "counters": json.dumps(dict(shard.counters)),
        "failing": None if shard.failing is None else codec.pack(shard.failing),
        "attempts": shard.attempts,
        "error": shard.error,
        "due": shard.due,
        "wakes": shard.wakes,
    }


def _shard_row(shard: Shard) -> models.Shard:
    bounds = shard.range
    return models.Shard(
        id=shard_id(shard.iteration_id, shard.index),
        iteration=shard.iteration_id,
        index=shard.index,
        range=codec.pack([bounds.lower, bounds.upper, bounds.closed, bounds.nulls]),
        due=shard.due,
    )


def _unpack_key(packed: Any) -> Key:
    key: Key = codec.unpack(bytes(packed))
    return key


def as_shard(row: models.Shard) -> Shard:
    """The noun of a row."""
    lower, upper, closed, nulls = codec.unpack(bytes(row.range))
    return Shard(
        iteration_id=row.iteration,
        index=row.index,
        range=KeyRange(lower=lower, upper=upper, closed=closed, nulls=nulls),
        generation=row.generation,
        fence=row.fence,
        position=None if row.position is None else _unpack_key(row.position),
        rows=row.rows,
        counters=_counters(row.counters),
        failing=None if row.failing is None else _unpack_key(row.failing),
        attempts=row.attempts,
        error=row.error,
        due=row.due,
        wakes=row.wakes,
        done=row.done,
    )


def _as_iteration(row: models.Iteration) -> Iteration:
    return Iteration(
        id=row.id,
        job=bytes(row.job),
        options=IterationOptions(**json.loads(row.options)),
        label=row.label,
        state=IterationState(row.state),
        resumes=IterationState(row.resumes) if row.resumes else None,
        reason=row.reason,
        generation=row.generation,
        due=row.due,
        wakes=row.wakes,
        total=row.total,
        counters=_counters(row.counters),
        created=row.created,
        finished=row.finished,
    )


def _counters(text: str) -> Mapping[str, int]:
    counters: Mapping[str, int] = json.loads(text)
    return counters
