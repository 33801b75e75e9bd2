"""What a queue says of an attempt in its headers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

from defer_core import clock
from defer_core.delivery import Delivery
from defer_core.frozen import made

from .doors import Door
from .request import values

_NAMES = "QueueName TaskName TaskRetryCount TaskExecutionCount TaskETA TaskPreviousResponse TaskRetryReason".split()
_APP_ENGINE = tuple(f"X-AppEngine-{name}" for name in _NAMES)
_CLOUD_TASKS = tuple(f"X-CloudTasks-{name}" for name in _NAMES)


def delivery_of(headers: Mapping[str, str], door: Door) -> Delivery:
    """The Delivery of a request that came in through `door`. What is missing or no number is None."""
    http = door.target != "appengine" and headers.get("X-CloudTasks-TaskName") is not None
    queue, task, retries, executions, eta, response, reason = values(headers, _CLOUD_TASKS if http else _APP_ENGINE)
    return made(
        Delivery,
        task_name=_short(task),
        queue=_short(queue),
        retry_count=_count(retries),
        execution_count=_count(executions),
        eta=_seconds(eta),
        previous_response=_count(response),
        retry_reason=reason or "",
        target=door.target or ("http" if http else "appengine"),
        require_signature=door.require_signature,
        started=clock.now(),
    )


def _short(name: str | None) -> str:
    """Queues give short names; a full one (`projects/…/tasks/name`) is cut."""
    return name.rpartition("/")[2] if name else ""


@lru_cache(maxsize=256)
def _count(text: str | None) -> int | None:
    return int(text) if text is not None and len(text) < 20 and text.isascii() and text.isdigit() else None


def _seconds(text: str | None) -> float | None:
    try:
        seconds = float(text or "nan")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
