"""What `defer()` returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import StrEnum

from .task import RetryOptions, Routing


class Status(StrEnum):
    """How far a task has come when `defer()` returns."""

    SENT = "sent"
    """The queue has it."""
    WAITS_FOR_COMMIT = "waits for commit"
    """Its record is in the caller's transaction."""
    WAITS_FOR_SWEEP = "waits for the sweep"
    """Its record is stored; the queue was unavailable, or gave no answer."""


@dataclass(kw_only=True)
class TaskHandle:
    """The task, with the attributes that people read on the SDK's `taskqueue.Task`.
    Its status moves on after a commit."""

    routing: Routing
    """Where and when it goes."""
    payload: bytes = field(repr=False)
    """The body as sent."""
    record_id: str | None = None
    """The record's id; None for a task that left none."""
    status: Status = Status.WAITS_FOR_COMMIT
    """How far it has come."""
    assigned_name: str | None = None
    """The short name that the queue has chosen, where the caller gave none."""
    method: str = "POST"
    """The HTTP method."""

    @property
    def name(self) -> str | None:
        """The task's short name; None where the queue has not chosen one yet."""
        return self.routing.name or self.assigned_name

    @property
    def queue_name(self) -> str:
        """The queue's short name."""
        return self.routing.queue

    @property
    def eta(self) -> datetime | None:
        """When it is due, in UTC; None is at once."""
        return None if self.routing.eta is None else datetime.fromtimestamp(self.routing.eta, timezone.utc)

    @property
    def eta_posix(self) -> float | None:
        """When it is due, in seconds since the epoch."""
        return self.routing.eta

    @property
    def url(self) -> str | None:
        """Where it is posted."""
        return self.routing.url

    @property
    def headers(self) -> dict[str, str]:
        """Its further headers."""
        return dict(self.routing.headers)

    @property
    def target(self) -> str | None:
        """`instance.version.service`, as far as given."""
        return ".".join(filter(None, (self.routing.instance, self.routing.version, self.routing.service))) or None

    @property
    def retry_options(self) -> RetryOptions | None:
        """How failures are repeated."""
        return self.routing.retry

    @property
    def size(self) -> int:
        """Bytes of the body as sent."""
        return len(self.payload)

    @property
    def was_enqueued(self) -> bool:
        """Whether the queue has it; false before the commit."""
        return self.status is Status.SENT
