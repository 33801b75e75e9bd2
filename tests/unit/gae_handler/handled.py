"""Functions that the tests of the handler defer, and the requests that bring them."""

from __future__ import annotations

from typing import Any

import defer_core
from defer_core.testing import MemoryTransport

QUEUE = {"X-AppEngine-QueueName": "default", "X-AppEngine-TaskName": "t-1"}
"""The headers that App Engine's queue always sends."""

calls: list[Any] = []
"""What `note` was called with."""


def note(*args: Any) -> None:
    """Remember a call."""
    calls.append(args)


def fail_once() -> None:
    """Ask for another try."""
    raise defer_core.SingularTaskFailure("not yet")


def fail_for_good() -> None:
    """Ask for none."""
    raise defer_core.PermanentTaskFailure("never")


def crash() -> None:
    """Have a bug."""
    raise ZeroDivisionError("a bug")


def note_delivery() -> None:
    """Remember the attempt."""
    calls.append(defer_core.current_delivery())


def body_of(transport: MemoryTransport) -> bytes:
    """The body of the one task in a queue."""
    [task] = transport.queued()
    return task.message.body
