"""Between the nouns of iterations and the columns of their tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from hashlib import blake2b
from typing import Any

from defer_core.spi import decode, encode

from .. import models
from ..model import counters
from ..model.iteration import MAX_LABEL, Iteration, IterationOptions, IterationState, QuarantinedRow
from ..model.shard import Key, KeyRange, Shard

Columns = dict[str, Any]
Read = Callable[[bytes], Any]
"""Unpacks a key, or the two bounds of a range and what else it has."""


def of_iteration(iteration: Iteration) -> Columns:
    """Return the columns that change."""
    return {
        "state": iteration.state.value,
        "resumes": "" if iteration.resumes is None else iteration.resumes.value,
        "reason": iteration.reason,
        "error": iteration.error,
        "errors": iteration.errors,
        "failed_at": iteration.failed_at,
        "generation": iteration.generation,
        "due": iteration.due,
        "wakes": iteration.requeues,
        "total": iteration.total,
        "rows": iteration.rows,
        "counters": counters.dumped(iteration.counters),
        "finished": iteration.finished,
    }


def new_iteration(iteration: Iteration) -> models.Iteration:
    """Return a new row."""
    return models.Iteration(
        id=iteration.id,
        job=iteration.job,
        options=json.dumps(asdict(iteration.options)),
        name=iteration.name,
        label=iteration.label[:MAX_LABEL],
        created=iteration.created,
        **of_iteration(iteration),
    )


def as_iteration(row: models.Iteration) -> Iteration:
    """Return the noun of a row."""
    return Iteration(
        id=row.id,
        job=bytes(row.job),
        options=IterationOptions(**json.loads(row.options)),
        name=row.name or "",  # an entity of an older release has none
        label=row.label,
        state=IterationState(row.state),
        resumes=IterationState(row.resumes) if row.resumes else None,
        reason=row.reason,
        error=row.error,
        errors=row.errors,
        failed_at=row.failed_at,
        generation=row.generation,
        due=row.due,
        requeues=row.wakes,
        total=row.total,
        rows=row.rows,
        counters=counters.loaded(row.counters),
        created=row.created,
        finished=row.finished,
    )


def shard_id(iteration_id: str, index: int) -> str:
    """Return the primary key of a shard's row."""
    return f"{iteration_id}-{index}"


def of_shard(shard: Shard) -> Columns:
    """Return the columns that change."""
    return {
        "range": _pack_range(shard.range),
        "generation": shard.generation,
        "fence": shard.fence,
        "position": None if shard.position is None else encode(shard.position),
        "rows": shard.rows,
        "counters": counters.dumped(shard.counters),
        "failing": None if shard.failing is None else encode(shard.failing),
        "attempts": shard.attempts,
        "error": shard.error,
        "errors": shard.errors,
        "failed_at": shard.failed_at,
        "due": shard.due,
        "wakes": shard.requeues,
        "done": shard.done,
        "rest": None if shard.rest is None else _pack_range(shard.rest),
    }


def new_shard(shard: Shard) -> models.Shard:
    """Return a new row."""
    return models.Shard(
        id=shard_id(shard.iteration_id, shard.index),
        iteration=shard.iteration_id,
        index=shard.index,
        **of_shard(shard),
    )


def as_shard(row: models.Shard, read: Read = decode) -> Shard:
    """Return the noun of a row; `read` says otherwise how keys are unpacked."""
    return Shard(
        iteration_id=row.iteration,
        index=row.index,
        range=_unpack_range(row.range, read),
        generation=row.generation,
        fence=row.fence,
        position=None if row.position is None else _unpack_key(row.position, read),
        rows=row.rows,
        counters=counters.loaded(row.counters),
        failing=None if row.failing is None else _unpack_key(row.failing, read),
        attempts=row.attempts,
        error=row.error,
        errors=row.errors,
        failed_at=row.failed_at,
        due=row.due,
        requeues=row.wakes,
        done=row.done,
        rest=None if row.rest is None else _unpack_range(row.rest, read),
    )


def quarantine_id(row: QuarantinedRow) -> str:
    """Return a primary key that is the same for the same row, so that a repeated quarantine is one."""
    return row.iteration_id + blake2b(encode(row.key), digest_size=16).hexdigest()


def of_quarantined(row: QuarantinedRow) -> Columns:
    """Return all columns but the primary key."""
    return {
        "iteration": row.iteration_id,
        "index": row.index,
        "key": encode(row.key),
        "error": row.error,
        "attempts": row.attempts,
    }


def as_quarantined(row: models.QuarantinedRow, read: Read = decode) -> QuarantinedRow:
    """Return the noun of a row; `read` says otherwise how its key is unpacked."""
    return QuarantinedRow(
        iteration_id=row.iteration,
        index=row.index,
        key=_unpack_key(row.key, read),
        error=row.error,
        attempts=row.attempts,
    )


def _pack_range(bounds: KeyRange) -> bytes:
    return encode([bounds.lower, bounds.upper, bounds.closed, bounds.nulls])


def _unpack_range(packed: Any, read: Read) -> KeyRange:
    lower, upper, closed, nulls = read(bytes(packed))
    return KeyRange(lower=lower, upper=upper, closed=closed, nulls=nulls)


def _unpack_key(packed: Any, read: Read) -> Key:
    key: Key = read(bytes(packed))
    return key
