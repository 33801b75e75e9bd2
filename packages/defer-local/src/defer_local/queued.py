"""A task as the local queue keeps it, and the result of an attempt."""

from __future__ import annotations

from dataclasses import dataclass, field

from defer_core.spi import Routing


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
    """The serialised task of the Cloud Tasks API; None for one of our own transport."""
    eta: float = 0.0
    """Its ETA, in seconds since the epoch."""
    created: float = 0.0
    """When it was added, in seconds since the epoch."""
    due: float = 0.0
    """When the next attempt is due, in seconds since the epoch."""
    attempts: int = 0
    """Attempts begun so far."""
    responses: int = 0
    """Attempts that were answered."""
    executions: int = 0
    """The execution count of the headers."""
    previous_response: int | None = None
    """The HTTP status of the previous attempt, as in the header; None before the first."""
    retry_reason: str = ""
    """The reason of the retry, as in App Engine's header."""
    first_attempt: float | None = None
    """When the first attempt began, in seconds since the epoch."""
    last_attempt: float | None = None
    """When the last attempt began."""
    answered: float | None = None
    """When the last attempt was answered; None if it was not, or not yet."""
    forced: bool = False
    """Run now, regardless of its queue's state and limits."""
    owner: str | None = None
    """The dispatcher that is running it."""

    @property
    def is_http(self) -> bool:
        """True for an HTTP target (an absolute URL), False for an App Engine target."""
        return not (self.routing.url or "/").startswith("/")

    @property
    def queue_id(self) -> str:
        """The queue's short name."""
        return self.queue.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class Settled:
    """The result of an attempt."""

    task: QueuedTask
    """The task as it was leased."""
    after: QueuedTask | None
    """The task for its next attempt; None if it is done, given up or gone."""
