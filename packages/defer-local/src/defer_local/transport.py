"""Hand tasks to the local queue; a dispatcher (`defer-local`) delivers them."""

from __future__ import annotations

import logging
import secrets
import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from defer_core.errors import TaskAlreadyExistsError, TransportError, TransportUnavailableError
from defer_core.spi import Message, QueueState, RetryOptions, Transport, clock, refuse_on_google_cloud

from .inspecting import states
from .living import BEAT_LASTS, Watch
from .queue import DurableQueue
from .queued import QueuedTask

log = logging.getLogger("defer.local")


class LocalTransport(Transport):
    """Writes tasks into the queue's file: `file`, else the environment variable DEFER_LOCAL_FILE, else
    `.defer/queue.sqlite3` in the folder of the project (BASE_DIR of Django, or the current directory). The name of a
    finished task is refused for a day."""

    name: ClassVar[str] = "local"
    default_authenticator: ClassVar[str | None] = "local"

    def __init__(self, *, file: str | Path | None = None) -> None:
        refuse_on_google_cloud("The local queue")
        self.queue = DurableQueue(file)
        self._watch = Watch()
        self._next_look = 0.0

    @property
    def secret(self) -> str:
        """The value of the header X-Defer-Local-Secret in the requests of the dispatcher."""
        return self.queue.secret()

    def send(self, message: Message) -> str:
        [answer] = self.send_many([message])
        if isinstance(answer, TransportError):
            raise answer
        return answer

    def send_many(self, messages: Sequence[Message]) -> list[str | TransportError]:
        """Add all in one transaction."""
        tasks = [_queued(message) for message in messages]
        try:
            with self.queue.file.named():
                taken = self.queue.add(tasks)
        except sqlite3.Error as error:
            refusal = TransportUnavailableError(f"The local queue added nothing: {error}")
            return [refusal for _ in messages]
        self._look_for_a_dispatcher()
        return [task.name if was else _exists(task) for task, was in zip(tasks, taken, strict=True)]

    def retry_of(self, queue: str) -> RetryOptions:
        return self.queue.retry_of(queue)

    def queue_states(self) -> list[QueueState]:
        return states(self.queue.file.path)

    def close(self) -> None:
        self.queue.close()

    def _look_for_a_dispatcher(self) -> None:
        """Warn once in the life of a process if no dispatcher runs; look now and then."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + BEAT_LASTS
        with suppress(sqlite3.Error):
            signs = self.queue.dispatchers()
            if len(self._watch.gone(signs)) == len(signs):
                self._next_look = float("inf")
                log.warning(
                    "No dispatcher delivers the tasks in %s: start `defer-local --url http://127.0.0.1:8000`, with the "
                    "address of your server (in a Django project `manage.py defer_local`).",
                    self.queue.file.path,
                )


def _queued(message: Message) -> QueuedTask:
    now, routing = clock.now(), message.routing
    eta = now if routing.eta is None else routing.eta
    name = routing.name or new_name()
    return QueuedTask(queue=routing.queue, name=name, routing=routing, body=message.body, eta=eta, created=now, due=eta)


def new_name() -> str:
    """Make a name of digits, like the service's own. Names grow, so that neighbours in the queue are neighbours in its
    indexes."""
    return f"{time.time_ns()}{secrets.randbelow(10**12):012d}"


def _exists(task: QueuedTask) -> TaskAlreadyExistsError:
    return TaskAlreadyExistsError(
        f"There is a task {task.name!r} in the queue {task.queue!r}, or there was one in the last 24 hours."
    )
