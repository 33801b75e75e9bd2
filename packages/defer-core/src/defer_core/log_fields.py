"""What the log says of an attempt besides its text: fields for `extra`, which formatters of JSON make columns of."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from . import clock
from .delivery import Delivery
from .text import one_line

_HEADERS = (
    re.compile(r"[0-9a-f]{2}-(?P<id>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}"),  # traceparent
    re.compile(r"(?P<id>[0-9A-Fa-f]{32})(/(?P<number>[0-9]{1,20}))?(;o=[0-9])?\Z"),  # X-Cloud-Trace-Context
)


class Trace(NamedTuple):
    """The trace that a request belongs to."""

    id: str
    """32 hexadecimal digits."""
    span: str
    """16 of them; empty if the request names none."""


def trace_of(header: str) -> Trace | None:
    """Return the trace that a `traceparent` or an `X-Cloud-Trace-Context` names, else None."""
    found = next(filter(None, (each.match(header) for each in _HEADERS)), None)
    if found is None or int(found["id"], 16) == 0:
        return None
    parts = found.groupdict()
    span = parts.get("span") or (f"{int(parts['number']):016x}"[-16:] if parts.get("number") else "")
    return Trace(found["id"].lower(), span)


def named(delivery: Delivery) -> dict[str, Any]:
    """Return which attempt it is: `task`, `queue`, `attempt`, `trace` and `span`, as far as they are known."""
    found: dict[str, Any] = {"attempt": delivery.attempt}
    _add(found, task=delivery.task_name, queue=delivery.queue)
    trace = trace_of(delivery.trace) if delivery.trace else None
    if trace is not None:
        _add(found, trace=trace.id, span=trace.span)
    return found


def of_attempt(
    delivery: Delivery, outcome: str, *, function: str = "", reason: str = "", error: str = ""
) -> dict[str, Any]:
    """Return what came of an attempt: `named()` with `outcome` (an Ending, or what a handler did with a request that it
    did not let in), `duration` in seconds since the attempt began, and what else is known."""
    found = named(delivery)
    found["outcome"], found["duration"] = str(outcome), round(max(0.0, clock.now() - delivery.started), 6)
    _add(found, function=function, reason=reason, error=error)
    return found


def _add(found: dict[str, Any], **texts: str) -> None:
    """Add what there is, each fit for one line."""
    for name, text in texts.items():
        if text:
            found[name] = one_line(text)
