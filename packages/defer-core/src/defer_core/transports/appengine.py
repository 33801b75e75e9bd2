"""App Engine's own Task Queue, through the bundled services, with adds that belong to the caller's transaction."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, ClassVar

from .. import platform
from ..errors import (
    AmbiguousSendError,
    QueueNotFoundError,
    TaskAlreadyExistsError,
    TaskSizeRefusedError,
    TransportError,
    TransportRefusedError,
    TransportUnavailableError,
)
from ..extras import require
from ..http_syntax import BODY_TYPE
from ..record import new_id
from ..task import RetryOptions, Routing
from .base import Message, Transport

log = logging.getLogger("defer")

TASKS_A_CALL, BYTES_A_CALL = 100, 900_000
"""The most that one call adds: the service takes 100 tasks, and a mebibyte."""


class AppEngineTransport(Transport):
    """Adds tasks with `google.appengine.api.taskqueue`. A URL is a path of the application itself."""

    name: ClassVar[str] = "appengine"
    supports_transactions: ClassVar[bool] = True
    max_body: ClassVar[int] = 100 * 1024 - 512
    """The SDK counts 100 KiB for method, path, headers and body together."""
    default_authenticator: ClassVar[str | None] = "appengine"

    def __init__(self) -> None:
        require("appengine")

    def check(self, routing: Routing) -> None:
        try:
            task_of(Message(body=b"", routing=routing))
        except Exception as error:
            raise _translated(error, routing) from error

    def send(self, message: Message) -> str:
        try:
            return self._add(message, transactional=False)
        except Exception as error:
            raise _translated(error, message.routing) from error

    def send_many(self, messages: Sequence[Message]) -> list[str | TransportError]:
        """Add by queue, many in a call; what a call leaves out is added alone, for its own answer.

        All tasks get names, so a task that a call added without an answer is known by its name being taken.
        """
        named = [_named(message) for message in messages]
        names: dict[int, str] = {}
        for chunk in _chunks(named):
            names |= self._add_many({index: named[index] for index in chunk})
        return [names.get(index) or self._alone(messages[index], named[index]) for index in range(len(messages))]

    def _alone(self, message: Message, named: Message) -> str | TransportError:
        try:
            return self.send(named)
        except TaskAlreadyExistsError as error:
            return error if message.routing.name else named.routing.name or ""
        except TransportError as error:
            return error

    def retry_of(self, queue: str) -> RetryOptions:
        """Return options that leave all open: only `queue.yaml` knows, and what is declared is for Cloud Tasks."""
        return RetryOptions()

    def in_transaction(self) -> bool:
        from google.appengine.api import datastore

        return bool(datastore.IsInTransaction())

    def send_in_transaction(self, message: Message) -> str:
        """Add a task in the caller's transaction. Errors are the SDK's own, as are its limits: five tasks in a
        transaction, and no names in one. Only a task that it finds too large is a TaskSizeRefusedError."""
        from google.appengine.api import taskqueue

        try:
            return self._add(message, transactional=True)
        except taskqueue.TransactionalRequestTooLargeError:
            raise
        except taskqueue.TaskTooLargeError as error:
            raise _translated(error, message.routing) from error

    def _add(self, message: Message, *, transactional: bool) -> str:
        added = task_of(message).add(message.routing.queue, transactional=transactional)
        return added.name or ""

    def _add_many(self, messages: dict[int, Message]) -> dict[int, str]:
        """Return the names of those that one call has added, by index."""
        from google.appengine.api import taskqueue

        tasks: dict[int, Any] = {}
        for index, message in messages.items():
            try:
                tasks[index] = task_of(message)
            except taskqueue.Error:
                continue
        try:
            taskqueue.Queue(next(iter(messages.values())).routing.queue).add(list(tasks.values()))
        except Exception:
            log.info("A call did not add all of its %d tasks: the others are added one by one.", len(tasks))
        return {index: task.name for index, task in tasks.items() if task.was_enqueued}


def _named(message: Message) -> Message:
    return message if message.routing.name else replace(message, routing=replace(message.routing, name=new_id()))


def task_of(message: Message) -> Any:
    """Return the SDK's Task. Raises the SDK's errors, or ConfigError if the Task Queue is out of reach."""
    from google.appengine.api import taskqueue

    platform.require_bundled_service(platform.TASK_QUEUE)
    routing = message.routing
    if routing.url and not routing.url.startswith("/"):
        raise taskqueue.InvalidUrlError(
            f"App Engine's Task Queue posts to paths of its application, not to {routing.url}."
        )
    target = ".".join(filter(None, (routing.instance, routing.version, routing.service)))
    deadline = routing.dispatch_deadline
    return taskqueue.Task(
        payload=message.body,
        name=routing.name,
        url=routing.url or "",
        eta=None if routing.eta is None else datetime.fromtimestamp(routing.eta, timezone.utc),
        headers={"Content-Type": BODY_TYPE, **routing.headers},
        target=target or None,
        retry_options=_retry(routing.retry),
        dispatch_deadline_usec=None if deadline is None else int(deadline * 1_000_000),
    )


def _retry(options: RetryOptions | None) -> Any:
    """Return the SDK's retry options. It counts repetitions where we count attempts; without a limit is its default."""
    from google.appengine.api import taskqueue

    if options is None:
        return None
    attempts = options.max_attempts
    given = {
        "task_retry_limit": None if attempts is None or attempts < 0 else max(attempts - 1, 0),
        "task_age_limit": options.max_retry_duration,
        "min_backoff_seconds": options.min_backoff,
        "max_backoff_seconds": options.max_backoff,
        "max_doublings": options.max_doublings,
    }
    return taskqueue.TaskRetryOptions(**{name: value for name, value in given.items() if value is not None})


def _chunks(messages: Sequence[Message]) -> list[list[int]]:
    """Return indexes of messages that go in one call: of one queue, few enough and small enough."""
    chunks: list[list[int]] = []
    last: dict[str, tuple[list[int], int]] = {}
    for index, message in enumerate(messages):
        chunk, size = last.get(message.routing.queue, ([], 0))
        if not chunk or len(chunk) == TASKS_A_CALL or size + len(message.body) > BYTES_A_CALL:
            chunk, size = [], 0
            chunks.append(chunk)
        chunk.append(index)
        last[message.routing.queue] = (chunk, size + len(message.body))
    return chunks


def _translated(error: Exception, routing: Routing) -> Exception:
    """Return our error for one of the SDK's; any other as it is."""
    from google.appengine.api import taskqueue
    from google.appengine.runtime import apiproxy_errors

    if isinstance(error, taskqueue.TaskTooLargeError):
        return TaskSizeRefusedError(f"{error}.")
    if isinstance(error, taskqueue.TaskAlreadyExistsError | taskqueue.TombstonedTaskError):
        return TaskAlreadyExistsError(f"There is, or was, a task {routing.name!r} in the queue {routing.queue!r}.")
    if isinstance(error, taskqueue.UnknownQueueError):
        return QueueNotFoundError(f"There is no queue {routing.queue!r}: add it to queue.yaml and deploy that.")
    if isinstance(error, taskqueue.TransientError):
        return TransportUnavailableError(f"The Task Queue is unavailable: {error}")
    if isinstance(error, taskqueue.InternalError | apiproxy_errors.Error):
        return AmbiguousSendError(f"The Task Queue gave no clear answer: {error!r}")
    if isinstance(error, taskqueue.Error):
        return TransportRefusedError(f"The Task Queue refused the task: {error!r}")
    return error
