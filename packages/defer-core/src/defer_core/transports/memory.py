"""A queue in this process's memory, for tests: `drain()` runs what is in it."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar

from .. import clock
from ..errors import TaskAlreadyExistsError
from ..record import new_id
from .base import Message, QueueState, Transport


@dataclass(frozen=True, kw_only=True)
class QueuedTask:
    """A task in the memory queue."""

    name: str
    """Its short name."""
    message: Message
    """The message that was sent."""
    attempts: int = 0
    """How often it has been delivered."""
    due: float = 0.0
    """When it is due, in seconds since the epoch."""
    order: int = field(default=0)
    """Its number in the order of sending."""


class MemoryTransport(Transport):
    """Keeps tasks in a dict. A name is refused once used, even after its task is gone."""

    name: ClassVar[str] = "memory"

    def __init__(self, *, max_body: int = 1_000_000) -> None:
        self.max_body = max_body  # type: ignore[misc]
        self.tasks: dict[tuple[str, str], QueuedTask] = {}
        self._names: set[tuple[str, str]] = set()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self.secret = new_id()
        """The secret for the authenticator `local`, in tests that post tasks themselves."""
        self.on_arrival: Callable[[QueuedTask, MemoryTransport], None] | None = None
        """Called with each task that is sent; `send` raises what it raises."""

    @property
    def runs_tasks(self) -> bool:  # type: ignore[override]
        """True if arriving tasks are handed to `on_arrival`, which runs them."""
        return self.on_arrival is not None

    def send(self, message: Message) -> str:
        task = self._kept(message)
        if self.on_arrival is not None:
            self.on_arrival(task, self)
        return task.name

    def _kept(self, message: Message) -> QueuedTask:
        with self._lock:
            number = next(self._numbers)
            name = message.routing.name or f"task-{number}"
            key = (message.routing.queue, name)
            if key in self._names:
                raise TaskAlreadyExistsError(
                    f"There is already a task {name!r} in the queue {message.routing.queue!r}."
                )
            self._names.add(key)
            task = QueuedTask(name=name, message=message, due=message.routing.eta or clock.now(), order=number)
            self.tasks[key] = task
            return task

    def queued(self, queue: str | None = None) -> list[QueuedTask]:
        """Return the tasks in the queue (in all queues, without one), in the order in which they are due."""
        with self._lock:
            found = [task for (of, _), task in self.tasks.items() if queue is None or of == queue]
        return sorted(found, key=lambda task: (task.due, task.order))

    def queue_states(self) -> list[QueueState]:
        now, found = clock.now(), self.queued()
        tasks, due = Counter[str](), Counter[str]()
        for each in found:
            tasks[each.message.routing.queue] += 1
            due[each.message.routing.queue] += each.due <= now
        return [QueueState(name=name, tasks=tasks[name], due=due[name]) for name in sorted(tasks)]

    def remove(self, task: QueuedTask) -> None:
        """Remove a task; its name stays taken."""
        with self._lock:
            self.tasks.pop((task.message.routing.queue, task.name), None)

    def retry(self, task: QueuedTask) -> QueuedTask:
        """Count an attempt that is to be repeated, and return the task with it."""
        again = replace(task, attempts=task.attempts + 1)
        with self._lock:
            self.tasks[(task.message.routing.queue, task.name)] = again
        return again

    def clear(self) -> None:
        """Empty every queue, and forget the names."""
        with self._lock:
            self.tasks.clear()
            self._names.clear()
