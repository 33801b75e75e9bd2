"""A queue in this process's memory, for tests: `drain()` runs what is in it."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field, replace
from typing import ClassVar

from .. import clock
from ..errors import TaskAlreadyExistsError
from .base import Message, Transport


@dataclass(frozen=True, kw_only=True)
class QueuedTask:
    """A task in the memory queue."""

    name: str
    """Its short name."""
    message: Message
    """As it was sent."""
    attempts: int = 0
    """How often it has been delivered."""
    due: float = 0.0
    """When it is due, in seconds since the epoch."""
    order: int = field(default=0)
    """Its place in the order of sending."""


class MemoryTransport(Transport):
    """Keeps tasks in a dict. Names are refused for ever, also once their task is gone."""

    name: ClassVar[str] = "memory"

    def __init__(self, *, max_body: int = 1_000_000) -> None:
        self.max_body = max_body  # type: ignore[misc]
        self.tasks: dict[tuple[str, str], QueuedTask] = {}
        self._names: set[tuple[str, str]] = set()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def send(self, message: Message) -> str:
        with self._lock:
            number = next(self._numbers)
            name = message.routing.name or f"task-{number}"
            key = (message.routing.queue, name)
            if key in self._names:
                raise TaskAlreadyExistsError(
                    f"There is a task {name!r} in the queue {message.routing.queue!r} already."
                )
            self._names.add(key)
            self.tasks[key] = QueuedTask(
                name=name, message=message, due=message.routing.eta or clock.now(), order=number
            )
            return name

    def queued(self, queue: str | None = None) -> list[QueuedTask]:
        """The tasks in the queue (all queues), in the order in which they are due."""
        with self._lock:
            found = [task for (of, _), task in self.tasks.items() if queue is None or of == queue]
        return sorted(found, key=lambda task: (task.due, task.order))

    def remove(self, task: QueuedTask) -> None:
        """Take a task out; its name stays taken."""
        with self._lock:
            self.tasks.pop((task.message.routing.queue, task.name), None)

    def retry(self, task: QueuedTask) -> QueuedTask:
        """Count an attempt that is to be repeated."""
        again = replace(task, attempts=task.attempts + 1)
        with self._lock:
            self.tasks[(task.message.routing.queue, task.name)] = again
        return again

    def clear(self) -> None:
        """Empty every queue, and forget the names."""
        with self._lock:
            self.tasks.clear()
            self._names.clear()
