"""The handle that `defer()` returns."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from enum import StrEnum

from ..http_syntax import BODY_TYPE
from ..task import RetryOptions, Routing


class Status(StrEnum):
    """How far a task has come when `defer()` returns."""

    SENT = "sent"
    """The queue has it."""
    WAITS_FOR_COMMIT = "waits for commit"
    """Its record is in the caller's transaction."""
    WAITS_FOR_SWEEP = "waits for the sweep"
    """Its record is stored; the queue was unavailable, or gave no answer."""


@dataclass(kw_only=True, repr=False)
class TaskHandle:
    """The task, with the attributes that people read on the SDK's `taskqueue.Task`. Its status advances after a
    commit."""

    routing: Routing
    """Where and when it goes."""
    payload: bytes
    """The body as sent."""
    record_id: str | None = None
    """The record's id; None for a task that left none."""
    status: Status = Status.WAITS_FOR_COMMIT
    """How far it has come."""
    assigned_name: str | None = None
    """The short name that the queue has chosen, if the caller gave none."""
    method: str = "POST"
    """The HTTP method."""

    def __repr__(self) -> str:
        return f"<TaskHandle {self.name or 'without a name'} in {self.queue_name}: {self.status}>"

    @property
    def name(self) -> str | None:
        """Short name of the task; None if the queue has not chosen one yet."""
        return self.routing.name or self.assigned_name

    @property
    def queue_name(self) -> str:
        """Short name of the queue."""
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
        """URL that it is posted to."""
        return self.routing.url

    @property
    def headers(self) -> dict[str, str]:
        """Its headers, as far as they are known here: those that were given, `Content-Type`, and `Host` if App Engine
        says what the target's is."""
        given = {name.lower() for name in self.routing.headers}
        known = {"Content-Type": BODY_TYPE, "Host": self._host()}
        own = {name: value for name, value in known.items() if value and name.lower() not in given}
        return {**own, **self.routing.headers}

    def _host(self) -> str | None:
        """Return the host of the target, as the SDK makes it: below that of the application's default version."""
        sdk = sys.modules.get("google.appengine.api.app_identity")
        default = sdk.get_default_version_hostname() if sdk else os.environ.get("DEFAULT_VERSION_HOSTNAME")
        return f"{self.target}.{default}" if self.target and default else None

    @property
    def target(self) -> str | None:
        """`instance.version.service`, as far as given."""
        return ".".join(filter(None, (self.routing.instance, self.routing.version, self.routing.service))) or None

    @property
    def retry_options(self) -> RetryOptions | None:
        """Retry options of the task itself."""
        return self.routing.retry

    @property
    def size(self) -> int:
        """Bytes of the body as sent."""
        return len(self.payload)

    @property
    def was_enqueued(self) -> bool:
        """True once the queue has it; False before the commit."""
        return self.status is Status.SENT
