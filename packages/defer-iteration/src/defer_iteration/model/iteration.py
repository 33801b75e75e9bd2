"""The iteration as a whole: its state, its options and its quarantined rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from typing import Any

from defer_core.spi import Routing

from .counters import Counters

DEFAULT_MAX_ATTEMPTS = 5
"""How often a row is called under `_on_error="quarantine"` and `"fail"`."""
MAX_LABEL = 500
"""How many characters of a label are kept."""


class IterationState(StrEnum):
    """Where an iteration stands."""

    NEW = "new"
    """Its shards are not yet planned."""
    RUNNING = "running"
    """Its shards are being walked."""
    PAUSED = "paused"
    """Stopped by `pause()`, until `resume()`."""
    HELD = "held"
    """Stopped by a cause that a person can mend (the reason names it); `resume()` tries again."""
    FAILED = "failed"
    """Stopped by a row, under `_on_error="fail"`; `resume()` calls it again."""
    CANCELLED = "cancelled"
    """Stopped for good by `cancel()`."""
    FINALIZING = "finalizing"
    """Every shard is done; `finalize` has not succeeded yet."""
    DONE = "done"
    """`finalize` has succeeded."""

    @property
    def is_over(self) -> bool:
        """Whether it cannot change any more."""
        return self in (IterationState.CANCELLED, IterationState.DONE)


@dataclass(frozen=True, kw_only=True)
class IterationOptions:
    """The options of an iteration."""

    queue: str = "default"
    """The queue of all its tasks."""
    service: str | None = None
    """The App Engine service of all its tasks."""
    version: str | None = None
    """The App Engine version."""
    instance: str | None = None
    """The App Engine instance."""
    dispatch_deadline: float | None = None
    """Seconds that one attempt may take; None leaves it to the queue."""
    shards: int = 5
    """How many shards were asked for."""
    order_field: str = "pk"
    """The field by whose values rows are ordered, ties broken by primary key."""
    delete_marker: bool = True
    """Whether the marker and the shards are deleted once `finalize` has succeeded."""
    buffer_time: float | None = None
    """Seconds before the deadline at which a shard hands over; None derives it from the slowest row so far."""
    atomic: bool = False
    """Whether what callbacks write for a page and its checkpoint are one transaction."""
    batch: int | None = None
    """The most rows that the callback is given in a list; None gives it one row, by itself."""
    on_error: str = "retry"
    """What happens to a row whose callback raises: `retry`, `quarantine` or `fail`."""
    max_attempts: int | None = None
    """How often a row is called before it is quarantined or stops the iteration; None is without limit."""
    on_failed: bool = False
    """Whether the job has a function to call when the iteration is `failed` or `held`."""
    limit: int | None = None
    """How many rows are passed before the iteration pauses for a look at them; None is all."""
    max_rows_per_second: float | None = None
    """How many rows all shards together pass in a second at most; None is without limit."""
    rebalance: bool = False
    """Whether a shard gives parts of what is left of its range to shards that are done."""
    trace: Mapping[str, str] = field(default_factory=dict)
    """The trace of the caller, with which the tasks go on that the sweep requeues; empty if there is none."""

    @property
    def shard_rows_per_second(self) -> float | None:
        """How many rows each shard passes in a second at most; None is without limit."""
        return None if self.max_rows_per_second is None else self.max_rows_per_second / self.shards

    def routing(self, name: str, eta: float | None = None) -> Routing:
        """Return where a task of the iteration goes."""
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
    """One call of `defer_iteration_with_finalize`. Its row in the database is the marker."""

    id: str
    """32 hexadecimal digits, random or derived from its name; the names of its tasks are derived from it."""
    job: bytes
    """What to do, packed: the rows, the callback, `finalize` and their arguments."""
    options: IterationOptions = field(default_factory=IterationOptions)
    """Its options."""
    name: str = ""
    """The caller's name for it; empty if it has none. Of one name there is one iteration at a time."""
    label: str = ""
    """What it calls, for people: `shop.tasks:ship`."""
    state: IterationState = IterationState.NEW
    """Where it stands."""
    resumes: IterationState | None = None
    """Where `resume()` leads back to; None if it is not stopped."""
    reason: str = ""
    """Why it is held or failed."""
    error: str = ""
    """The traceback of the last failure of its plan or finalize, until one succeeds."""
    errors: int = 0
    """How many attempts at its plan or finalize have failed in a row."""
    failed_at: float | None = None
    """When the last of them did, in seconds since the epoch."""
    generation: int = 0
    """Counts the tasks that plan or finalize it, and their attempts; every new task has a new name."""
    due: float = 0.0
    """When its plan or finalize counts as stalled, in seconds since the epoch."""
    requeues: int = 0
    """How often the sweep has requeued its plan or finalize."""
    total: int | None = None
    """How many rows there were when it was planned; None if they were not counted."""
    rows: int | None = None
    """How many rows its shards have finished, from when the last one was done; None before."""
    counters: Mapping[str, Any] = field(default_factory=Counters)
    """The shards' counters, merged once, when the last shard was done; what quarantined rows count when they are called
    again is added here."""
    created: float = 0.0
    """When it was called, in seconds since the epoch."""
    finished: float | None = None
    """When it was done or cancelled."""

    @property
    def is_merged(self) -> bool:
        """Whether `counters` includes those of the shards."""
        return self.state is IterationState.DONE or IterationState.FINALIZING in (self.state, self.resumes)


def id_of(name: str) -> str:
    """Return the id of the iteration of a name: the primary key lets one exist at a time."""
    return blake2b(f"name:{name}".encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, kw_only=True)
class QuarantinedRow:
    """A row that was set aside because its callback raised too often."""

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
