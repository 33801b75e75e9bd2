"""What is deferred through the SDK's `defer` and through ours, for comparison."""

from __future__ import annotations

import operator
import random
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import services
from integration.appengine import deferrable
from integration.appengine.deferrable import Greeter, note

taskqueue = services.library("google.appengine.api.taskqueue")
SOON = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(hours=1)

CALLABLES: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
    "function": (note, (1, "é"), {"key": [1, {"a": None}]}),
    "class": (Greeter, ("Ann",), {}),
    "bound method": (Greeter("Ann").greet, (1,), {}),
    "class method": (Greeter.make, (1,), {}),
    "static method": (Greeter.still, (1,), {}),
    "callable instance": (Greeter("Bob"), (1,), {}),
    "partial": (partial(note, 1), (2,), {"key": 3}),
    "builtin": (len, ("abc",), {}),
    "bound builtin": ("a-b".split, ("-",), {}),
    "operator": (operator.add, (1, 2), {}),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "countdown": {"_countdown": 3600},
    "eta": {"_eta": SOON},
    "naive eta": {"_eta": SOON.replace(tzinfo=None)},
    "name": {"_name": "mine"},
    "queue": {"_queue": "mail"},
    "url": {"_url": "/other"},
    "headers": {"_headers": {"X-Color": "red"}},
    "service": {"_target": "backend"},
    "version and service": {"_target": "v1.backend"},
    "retry options": {"_retry_options": taskqueue.TaskRetryOptions(task_retry_limit=3, min_backoff_seconds=2)},
    "no retries": {"_retry_options": taskqueue.TaskRetryOptions(task_retry_limit=0)},
    "age limit": {"_retry_options": taskqueue.TaskRetryOptions(task_age_limit=60, max_doublings=2)},
}
ENDS = {
    "returns": note,
    "singular": deferrable.fail_once_in_googles_way,
    "permanent": deferrable.fail_for_good_in_googles_way,
    "crash": deferrable.crash,
}


def noise(size: int) -> str:
    """Text that does not compress to anything small."""
    return random.Random(size).randbytes(size // 2).hex()
