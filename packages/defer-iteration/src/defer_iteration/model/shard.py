"""One shard of an iteration: a range of keys, how far it has come, and who may say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from .counters import Counters

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
    """Whether `upper` belongs to it, as in the last range, whose bound was fixed when it was planned."""
    nulls: bool = False
    """Whether it has the rows without an order value, in the order of their primary keys; its bounds are `(pk,)`."""


def cut(within: KeyRange, bounds: Sequence[Key]) -> list[KeyRange]:
    """Return a range cut at bounds, each of which is where a part begins; without bounds, the whole range."""
    edges = [within.lower, *bounds, within.upper]
    return [
        replace(within, lower=lower, upper=upper, closed=within.closed and part == len(bounds))
        for part, (lower, upper) in enumerate(pairwise(edges))
    ]


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One slot of an iteration: a range of its rows, or several in turn."""

    iteration_id: str
    """Its iteration."""
    index: int
    """Its number, from 0."""
    range: KeyRange
    """Its rows: those that it has passed, or now has to pass. Only the attempt that holds an open shard changes it."""
    generation: int = 0
    """Counts its tasks: only a task of the current generation may work on it."""
    fence: int = 0
    """Counts its attempts: each takes the next number, and a write under an older one fails."""
    position: Key | None = None
    """The last key of the range that is finished; None before the first."""
    rows: int = 0
    """Rows finished, those of earlier ranges too."""
    counters: Mapping[str, Any] = field(default_factory=Counters)
    """What callbacks have counted."""
    failing: Key | None = None
    """The row that raised last, or the first of a batch that did, if `position` has not passed it since."""
    attempts: int = 0
    """How often that row has raised by itself."""
    error: str = ""
    """The traceback of the last exception, until rows are passed again."""
    errors: int = 0
    """How many attempts have failed outside a row since rows were last passed."""
    failed_at: float | None = None
    """When the last exception was raised, in seconds since the epoch."""
    due: float = 0.0
    """When it counts as stalled, in seconds since the epoch: its ETA or its attempt's deadline, and a grace."""
    requeues: int = 0
    """How often the sweep has requeued it since its last checkpoint."""
    done: bool = False
    """Whether it has passed the last row of its range, and may be given another range."""
    rest: KeyRange | None = None
    """The range that it is given once the first rows of the iteration, its trial, are passed."""


@dataclass(frozen=True, kw_only=True)
class Stalled:
    """A plan, a shard or a finalize on which no task seems to work."""

    iteration_id: str
    """Its iteration."""
    index: int | None = None
    """The shard; None is the plan or finalize."""
    generation: int = 0
    """The generation that stalled."""
    due: float = 0.0
    """Since when, in seconds since the epoch."""
    requeues: int = 0
    """How often it was requeued before."""
