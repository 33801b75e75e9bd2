"""An attempt, by the headers of its request."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

from defer_core.spi import Delivery, clock

from .authenticators import Authenticator
from .request import values

_NAMES = "QueueName TaskName TaskRetryCount TaskExecutionCount TaskETA TaskPreviousResponse TaskRetryReason".split()
_TRACE = ("traceparent", "X-Cloud-Trace-Context")
_APP_ENGINE = (*(f"X-AppEngine-{name}" for name in _NAMES), *_TRACE)
_CLOUD_TASKS = (*(f"X-CloudTasks-{name}" for name in _NAMES), *_TRACE)


def delivery_of(headers: Mapping[str, str], authenticator: Authenticator | None) -> Delivery:
    """Return the Delivery of a request that `authenticator` accepted (None: what it claims, of one that none did); None
    for what is missing or no number."""
    target = "" if authenticator is None else authenticator.target
    http = target != "appengine" and headers.get("X-CloudTasks-TaskName") is not None
    known = values(headers, _CLOUD_TASKS if http else _APP_ENGINE)
    queue, task, retries, executions, eta, response, reason, trace, trace_of_google = known
    return Delivery(
        task_name=_short(task),
        queue=_short(queue),
        retry_count=_count(retries),
        execution_count=_count(executions),
        eta=_seconds(eta),
        previous_response=_count(response),
        retry_reason=reason or "",
        target=target or ("http" if http else "appengine"),
        require_signature=authenticator is not None and authenticator.require_signature,
        started=clock.now(),
        trace=trace or trace_of_google or "",
    )


def _short(name: str | None) -> str:
    """Cut a full name (`projects/…/tasks/name`), which some queues send, to the short one."""
    return name.rpartition("/")[2] if name else ""


def _count(text: str | None) -> int | None:
    return None if text is None or len(text) > 19 else _number(text)


@lru_cache(maxsize=256)
def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _seconds(text: str | None) -> float | None:
    try:
        seconds = float(text or "nan")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
