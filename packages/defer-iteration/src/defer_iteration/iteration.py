"""The iteration as a whole: its state, its options and what `progress()` says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from defer_core.task import Routing

DEFAULT_MAX_ATTEMPTS = 5
"""Calls that one row is given under `_on_error="quarantine"` and `"fail"`."""


class IterationState(StrEnum):
    """Where an iteration stands."""

    NEW = "new"
    """Called; its shards are not yet planned."""
    RUNNING = "running"
    """Its shards are at work."""
    PAUSED = "paused"
    """Stopped by `pause()`, until `resume()`."""
    HELD = "held"
    """Stopped by something that a person can mend (the reason says what); `resume()` tries again."""
    FAILED = "failed"
    """Stopped for good by a row, under `_on_error="fail"`."""
    CANCELLED = "cancelled"
    """Stopped for good by `cancel()`."""
    FINALIZING = "finalizing"
    """Every shard is done; `finalize` has still to succeed."""
    DONE = "done"
    """`finalize` has succeeded."""

    @property
    def is_over(self) -> bool:
        """Whether nothing can happen to it any more."""
        return self in (IterationState.FAILED, IterationState.CANCELLED, IterationState.DONE)


@dataclass(frozen=True, kw_only=True)
class IterationOptions:
    """How an iteration was asked to go."""

    queue: str = "default"
    """The queue of every task of it."""
    service: str | None = None
    """App Engine service of every task of it."""
    version: str | None = None
    """App Engine version."""
    instance: str | None = None
    """App Engine instance."""
    dispatch_deadline: float | None = None
    """Seconds that one attempt may take; None leaves it to the queue."""
    shards: int = 5
    """How many shards are wanted."""
    order_field: str = "pk"
    """The field by whose values rows are ordered, ties broken by primary key."""
    delete_marker: bool = True
    """Whether the rows of the iteration itself are deleted once `finalize` has succeeded."""
    buffer_time: float | None = None
    """Seconds before the deadline at which a shard hands over; None goes by the slowest row so far."""
    atomic: bool = False
    """Whether a page's effects and its checkpoint are one transaction."""
    on_error: str = "retry"
    """What to do about a row whose callback raises: `retry`, `quarantine` or `fail`."""
    max_attempts: int | None = None
    """Calls that a row is given before it is set aside, or stops the iteration; None is without limit."""

    def routing(self, name: str, eta: float | None = None) -> Routing:
        """Where a task of the iteration goes."""
        return Routing(
            queue=self.queue,
            name=name,
            eta=eta,
            service=self.service,
            version=self.version,
            instance=self.instance,
            dispatch_deadline=self.dispatch_deadline,
        )


@dataclass(frozen=True, kw_only=True)
class Iteration:
    """One call of `defer_iteration_with_finalize`. This row is its marker."""

    id: str
    """32 hexadecimal digits, random; the names of its tasks are derived from it."""
    job: bytes
    """What to do, packed: the rows, the callback, `finalize` and their arguments."""
    options: IterationOptions = field(default_factory=IterationOptions)
    """How to do it."""
    label: str = ""
    """What it calls, for people: `shop.tasks:ship`."""
    state: IterationState = IterationState.NEW
    """Where it stands."""
    resumes: IterationState | None = None
    """The state that `resume()` leads back to; None where it does not stand still."""
    reason: str = ""
    """Why it is held or failed."""
    generation: int = 0
    """Counts the tasks that plan or finalize it, and their attempts; every new task has a new name."""
    due: float = 0.0
    """When its plan or finalize counts as stalled, in seconds since the epoch."""
    wakes: int = 0
    """How often the sweep has woken its plan or finalize."""
    total: int | None = None
    """Rows when it was planned; None where they were not counted."""
    counters: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """The shards' counters, merged once, when the last shard was done."""
    created: float = 0.0
    """When it was called, in seconds since the epoch."""
    finished: float | None = None
    """When it was over."""


@dataclass(frozen=True, kw_only=True)
class QuarantinedRow:
    """A row that was set aside after its callback had raised too often."""

    iteration_id: str
    """Its iteration."""
    index: int
    """Its shard."""
    key: tuple[Any, ...]
    """Its order value and primary key, or its primary key alone."""
    error: str
    """The traceback of the last call."""
    attempts: int
    """How often it was called."""
