"""A task as the local queue keeps it, and what an attempt came to."""

from __future__ import annotations

from dataclasses import dataclass, field

from defer_core.task import Routing


@dataclass(frozen=True, kw_only=True)
class QueuedTask:
    """One task in the queue."""

    queue: str
    """The queue's key: a short name, or (made by way of the Cloud Tasks API) a whole resource name."""
    name: str
    """Its short name."""
    routing: Routing = field(default_factory=Routing)
    """Where it goes: URL, further headers, retry options, dispatch deadline."""
    method: str = "POST"
    """The HTTP method."""
    body: bytes = b""
    """The body of the request."""
    proto: bytes | None = None
    """The task as the Cloud Tasks API was given it, serialised; None for one of our own transport."""
    eta: float = 0.0
    """When it is to run, in seconds since the epoch."""
    created: float = 0.0
    """When it was taken, in seconds since the epoch."""
    due: float = 0.0
    """When the next attempt is due, in seconds since the epoch."""
    attempts: int = 0
    """Attempts that have begun."""
    responses: int = 0
    """Attempts that were answered."""
    executions: int = 0
    """What the header of the execution count says."""
    previous_response: int | None = None
    """The HTTP status of the previous attempt, as the header says it; None before there was one."""
    retry_reason: str = ""
    """Why it is tried again, as the header of App Engine says it."""
    first_attempt: float | None = None
    """When the first attempt began, in seconds since the epoch."""
    last_attempt: float | None = None
    """When the last attempt began."""
    answered: float | None = None
    """When the last attempt was answered; None where it was not, or has not been yet."""
    forced: bool = False
    """To run now, whatever its queue's state and limits."""
    owner: str | None = None
    """The dispatcher that has it in hand."""

    @property
    def is_http(self) -> bool:
        """Whether it is for an HTTP target (an absolute URL); the others are for App Engine targets."""
        return not (self.routing.url or "/").startswith("/")

    @property
    def queue_id(self) -> str:
        """The queue's short name."""
        return self.queue.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What became of an attempt."""

    task: QueuedTask
    """The task as it was leased."""
    after: QueuedTask | None
    """The task as it goes on; None for one that is gone, done or given up."""
