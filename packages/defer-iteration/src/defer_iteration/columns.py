"""Between the nouns of iterations and the columns of their tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import blake2b
from typing import Any

from defer_core import codec

from . import models
from .iteration import Iteration, IterationOptions, IterationState, QuarantinedRow
from .shard import Key, KeyRange, Shard

Columns = dict[str, Any]


def of_iteration(iteration: Iteration) -> Columns:
    """The columns that change."""
    return {
        "state": iteration.state.value,
        "resumes": "" if iteration.resumes is None else iteration.resumes.value,
        "reason": iteration.reason,
        "generation": iteration.generation,
        "due": iteration.due,
        "wakes": iteration.wakes,
        "total": iteration.total,
        "counters": json.dumps(dict(iteration.counters)),
        "finished": iteration.finished,
    }


def new_iteration(iteration: Iteration) -> models.Iteration:
    """A new row."""
    return models.Iteration(
        id=iteration.id,
        job=iteration.job,
        options=json.dumps(asdict(iteration.options)),
        label=iteration.label[:500],
        created=iteration.created,
        **of_iteration(iteration),
    )


def as_iteration(row: models.Iteration) -> Iteration:
    """The noun of a row."""
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


def shard_id(iteration_id: str, index: int) -> str:
    """The key of a shard's row."""
    return f"{iteration_id}-{index}"


def of_shard(shard: Shard) -> Columns:
    """The columns that change."""
    return {
        "generation": shard.generation,
        "fence": shard.fence,
        "position": None if shard.position is None else codec.pack(shard.position),
        "rows": shard.rows,
        "counters": json.dumps(dict(shard.counters)),
        "failing": None if shard.failing is None else codec.pack(shard.failing),
        "attempts": shard.attempts,
        "error": shard.error,
        "due": shard.due,
        "wakes": shard.wakes,
        "done": shard.done,
    }


def new_shard(shard: Shard) -> models.Shard:
    """A new row."""
    bounds = shard.range
    return models.Shard(
        id=shard_id(shard.iteration_id, shard.index),
        iteration=shard.iteration_id,
        index=shard.index,
        range=codec.pack([bounds.lower, bounds.upper, bounds.closed, bounds.nulls]),
        **of_shard(shard),
    )


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


def quarantine_id(row: QuarantinedRow) -> str:
    """The same for the same row, so that a repeated quarantine is one."""
    return row.iteration_id + blake2b(codec.pack(row.key), digest_size=16).hexdigest()


def of_quarantined(row: QuarantinedRow) -> Columns:
    """All columns but the key."""
    return {
        "iteration": row.iteration_id,
        "index": row.index,
        "key": codec.pack(row.key),
        "error": row.error,
        "attempts": row.attempts,
    }


def as_quarantined(row: models.QuarantinedRow) -> QuarantinedRow:
    """The noun of a row."""
    return QuarantinedRow(
        iteration_id=row.iteration, index=row.index, key=_unpack_key(row.key), error=row.error, attempts=row.attempts
    )


def _unpack_key(packed: Any) -> Key:
    key: Key = codec.unpack(bytes(packed))
    return key


def _counters(text: str) -> Mapping[str, int]:
    counters: Mapping[str, int] = json.loads(text)
    return counters
