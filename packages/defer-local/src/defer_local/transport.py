"""Hands tasks to the local queue; a dispatcher (`defer-local`) delivers them."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from defer_core import clock
from defer_core.config import refuse_on_google_cloud
from defer_core.errors import TaskAlreadyExistsError, TransportError, TransportUnavailableError
from defer_core.transports.base import Message, Transport

from .queue import DurableQueue
from .queued import QueuedTask


class LocalTransport(Transport):
    """Puts tasks into the queue's file; `file` is by default what the environment variable DEFER_LOCAL_FILE says, else
    `.defer/queue.sqlite3` under the current directory. The names of tasks are refused for a day after they are gone."""

    name: ClassVar[str] = "local"
    default_door: ClassVar[str | None] = "local"

    def __init__(self, *, file: str | Path | None = None) -> None:
        refuse_on_google_cloud("The local queue")
        self.queue = DurableQueue(file)

    @cached_property
    def secret(self) -> str:
        """What a request from the dispatcher bears in the header X-Defer-Local-Secret."""
        return self.queue.secret()

    def send(self, message: Message) -> str:
        [answer] = self.send_many([message])
        if isinstance(answer, TransportError):
            raise answer
        return answer

    def send_many(self, messages: Sequence[Message]) -> list[str | TransportError]:
        """All in one transaction."""
        tasks = [_queued(message) for message in messages]
        try:
            taken = self.queue.add(tasks)
        except sqlite3.Error as error:
            refusal = TransportUnavailableError(f"The local queue {self.queue.file.path} took nothing: {error}")
            return [refusal for _ in messages]
        return [task.name if was else _exists(task) for task, was in zip(tasks, taken, strict=True)]

    def close(self) -> None:
        self.queue.close()


def _queued(message: Message) -> QueuedTask:
    now, routing = clock.now(), message.routing
    eta = now if routing.eta is None else routing.eta
    name = routing.name or new_name()
    return QueuedTask(queue=routing.queue, name=name, routing=routing, body=message.body, eta=eta, created=now, due=eta)


def new_name() -> str:
    """A name for a task that was given none: digits, as the service's own are."""
    return str(secrets.randbelow(9 * 10**18) + 10**18)


def _exists(task: QueuedTask) -> TaskAlreadyExistsError:
    return TaskAlreadyExistsError(
        f"There is a task {task.name!r} in the queue {task.queue!r}, or there was one in the last 24 hours."
    )
