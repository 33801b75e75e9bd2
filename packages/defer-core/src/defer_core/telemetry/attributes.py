"""The attributes of spans and metrics, by OpenTelemetry's conventions for messaging; those of ours begin with
`defer.`."""

from __future__ import annotations

from typing import Any

SYSTEM = "messaging.system"
OPERATION_NAME = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
QUEUE = "messaging.destination.name"
FUNCTION = "code.function.name"
ERROR = "error.type"
MESSAGE_ID = "messaging.message.id"
BODY_SIZE = "messaging.message.body.size"
BATCH_SIZE = "messaging.batch.message_count"

OUTCOME = "defer.outcome"
"""How an attempt has ended (`done`, `retry`, `failed`, `dead`), or what a sweep has done."""
REASON = "defer.reason"
"""Why a task is a dead letter."""
ATTEMPT = "defer.attempt"
"""The number of an attempt, from 1."""
STATUS = "defer.status"
"""How far a task had come when `defer()` returned."""
STORE = "defer.store"
"""The name of a store, and the alias if it has one."""


def operation(name: str, queue: str, label: str, error: BaseException | None = None) -> dict[str, Any]:
    """Return the attributes of an operation (`send` or `process`) on tasks of one queue and one callable; an empty
    label is of a callable that is not known."""
    found = {SYSTEM: "defer", OPERATION_NAME: name, OPERATION_TYPE: name, QUEUE: queue or "default"}
    if label:
        found[FUNCTION] = function(label)
    if error is not None:
        found[ERROR] = error_type(error)
    return found


def function(label: str) -> str:
    """Return the label of a callable (`shop.tasks:ship`) as the conventions write its name: `shop.tasks.ship`."""
    return label.replace(":", ".")


def error_type(error: BaseException) -> str:
    """Return the name of an exception's class; outside of `builtins`, with its module."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
