"""Deliveries of single tasks, and what happens in the middle of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from testapp import iterations

from defer_core import Outcome, execute
from defer_core.spi import Delivery
from defer_core.testing import MemoryTransport, QueuedTask
from defer_iteration import models


class Killed(BaseException):
    """The process dies."""


def kill() -> None:
    """Let the process die."""
    raise Killed


def deliver(task: QueuedTask) -> Outcome:
    """Deliver a task once; it stays in the queue."""
    return execute(task.message.body, Delivery(task_name=task.name, queue="default", eta=task.due))


def finish(queue: MemoryTransport, task: QueuedTask) -> None:
    """Deliver a task and let the queue have its answer."""
    assert deliver(task) is Outcome.DONE
    queue.remove(task)


def on_row(number: int, what: Callable[[], Any]) -> None:
    """Do something in the callback of the `number`th row passed, once."""
    passed = []

    def mischief(row: Any) -> None:
        passed.append(row.pk)
        if len(passed) == number:
            what()

    iterations.before.append(mischief)


def poison(key: Any, times: int = 10**9, error: type[Exception] = ValueError) -> list[Any]:
    """Let the callback raise for one row, this many times. Return the list of calls."""
    calls: list[Any] = []

    def raising(row: Any) -> None:
        if row.pk == key:
            calls.append(key)
            if len(calls) <= times:
                raise error("poison")

    iterations.before.append(raising)
    return calls


def state() -> str:
    """Return the state of the only iteration."""
    return models.Iteration.objects.get().state
