"""What one attempt at a task knows of itself, and how it can end."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum

from . import clock
from .nouns import changed, fast_init

DEFAULT_DEADLINE = 600.0
"""Seconds that Cloud Tasks and automatically scaled App Engine give an attempt by default."""


@fast_init
@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One attempt at one task."""

    task_name: str = ""
    """The task's short name in its queue."""
    queue: str = ""
    """The queue's short name."""
    retry_count: int | None = None
    """How many attempts came before this one; None where the queue does not say."""
    execution_count: int | None = None
    """How many earlier attempts were answered; None where the queue does not say."""
    eta: float | None = None
    """When the task was due, in seconds since the epoch."""
    previous_response: int | None = None
    """The HTTP status of the previous attempt."""
    retry_reason: str = ""
    """Why the queue tries again, in its words."""
    target: str = ""
    """The kind of target: `appengine`, `http`, `local`, `google` (Google's own handler) or `memory`."""
    started: float = field(default_factory=clock.now)
    """When this attempt began, in seconds since the epoch."""
    deadline: float | None = None
    """When this attempt will be cut off, in seconds since the epoch; None until the envelope has been read."""
    require_signature: bool = False
    """True if the authenticator proves too little, so that only a signed envelope may run."""
    trace: str = ""
    """The trace of its request, as the header `traceparent` or `X-Cloud-Trace-Context` has it."""

    @property
    def attempt(self) -> int:
        """The number of this attempt; 1 if its queue does not say."""
        return (self.retry_count or 0) + 1

    def with_deadline(self, seconds: float | None) -> Delivery:
        """Return this attempt with its deadline: what its queue has said, else so many seconds after it began (what its
        task was deferred with, or the default)."""
        return changed(self, deadline=self.deadline or self.started + (seconds or DEFAULT_DEADLINE))

    def seconds_left(self, now: float | None = None) -> float:
        """Return the seconds until the deadline (until the default one, if none is known); negative once it is past."""
        deadline = self.started + DEFAULT_DEADLINE if self.deadline is None else self.deadline
        return deadline - (clock.now() if now is None else now)


class Ending(StrEnum):
    """How an attempt has ended."""

    DONE = "done"
    """It ran, or there was nothing to do."""
    RETRY = "retry"
    """It is to be run again, and that is no failure: it asked for that, cannot be read yet, or its process ends."""
    FAILED = "failed"
    """It raised, and its queue (of a task of an iteration, the sweep) will have it run again."""
    DEAD = "dead"
    """It will not be run again by itself."""


running: ContextVar[Delivery | None] = ContextVar("defer_delivery", default=None)
"""The attempt that this thread (or asyncio task) is executing."""


def current_delivery() -> Delivery | None:
    """Return the attempt that is running here, or None outside a task."""
    return running.get()
