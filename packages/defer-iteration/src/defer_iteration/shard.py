"""One shard of an iteration: a range of keys, how far it has come, and who may say so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

Key = tuple[Any, ...]
"""Where a row stands in the order: `(pk,)`, or `(order value, pk)`. A bound may be `(order value,)` alone."""


@dataclass(frozen=True, kw_only=True)
class KeyRange:
    """Rows from `lower` on and below `upper`."""

    lower: Key | None = None
    """The first key of the range, inclusive; None is an open end."""
    upper: Key | None = None
    """The key that ends it, exclusive unless `closed`; None is an open end."""
    closed: bool = False
    """Whether `upper` belongs to it: so is the last range, whose bound was frozen when it was planned."""
    nulls: bool = False
    """The rows that have no order value, in the order of their primary keys; its bounds are `(pk,)`."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One range of an iteration's rows."""

    iteration_id: str
    """Its iteration."""
    index: int
    """Its number, from 0."""
    range: KeyRange
    """Its rows."""
    generation: int = 0
    """Which task may work on it: each successor is a new one, and a task of another has nothing to do."""
    fence: int = 0
    """Which attempt may write: each takes the next number, and a write under an older one fails."""
    position: Key | None = None
    """The last key finished; None before the first."""
    rows: int = 0
    """Rows finished."""
    counters: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """What callbacks have counted."""
    failing: Key | None = None
    """The row that raised last, if `position` has not passed it since."""
    attempts: int = 0
    """How often that row has raised."""
    error: str = ""
    """The traceback of the last exception."""
    due: float = 0.0
    """When it counts as stalled, in seconds since the epoch: its ETA or its attempt's deadline, and a grace."""
    wakes: int = 0
    """How often the sweep has woken it since its last checkpoint."""
    done: bool = False
    """Whether it has passed its last row."""


@dataclass(frozen=True, kw_only=True)
class Stalled:
    """A plan, a shard or a finalize that nobody seems to be working on."""

    iteration_id: str
    """Its iteration."""
    index: int | None = None
    """The shard; None is the plan or finalize."""
    generation: int = 0
    """The generation that stalled."""
    due: float = 0.0
    """Since when, in seconds since the epoch."""
    wakes: int = 0
    """How often it was woken before."""
