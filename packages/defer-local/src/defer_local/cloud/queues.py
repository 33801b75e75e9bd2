"""The calls of the API for queues."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from sqlite3 import Connection
from typing import Any

from google.cloud import tasks_v2
from google.protobuf import empty_pb2, field_mask_pb2

from defer_core.spi import clock

from ..queue import DurableQueue
from ..rows import remove_all
from .answers import invalid, no_such_queue, not_found, queue_existed, queue_exists, unimplemented
from .messages import Message, check_retry, retry_options, set_time
from .names import check_parent, check_queue, location_of
from .pages import page_of

Queue: Any = tasks_v2.Queue.pb()
ListQueuesResponse: Any = tasks_v2.ListQueuesResponse.pb()
STATES = tasks_v2.Queue.State
NAME_RETENTION = 7 * 86400.0
"""Seconds for which the name of a deleted queue is refused."""
MOST = {"max_dispatches_per_second": 500, "max_concurrent_dispatches": 5000}
"""The greatest limits that the service grants a queue."""
SETTABLE = ("app_engine_routing_override", "http_target", "rate_limits", "retry_config", "stackdriver_logging_config")
_SAVE = """INSERT INTO queues (name, state, proto, retry, max_running, rate, burst, tokens, refilled)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET deleted = NULL, state = excluded.state,
proto = excluded.proto, retry = excluded.retry, max_running = excluded.max_running, rate = excluded.rate,
burst = excluded.burst"""


class QueueCalls:
    """One method for each RPC: it takes the request, returns the answer, raises ApiError."""

    def __init__(self, queue: DurableQueue) -> None:
        self.file = queue.file

    def create_queue(self, request: Message) -> Message:
        """CreateQueue."""
        given = request.queue
        if location_of(check_queue(given.name)) != check_parent(request.parent):
            raise invalid(f"The queue {given.name!r} is not in the location of the request, {request.parent!r}.")
        with self.file.writing() as connection:
            _check_free(connection, given.name)
            return _save(connection, _completed(given))

    def provide(self, name: str) -> None:
        """Make a queue if it does not exist, even if it was just deleted. Raises ApiError for its name."""
        name = check_queue(name)
        with self.file.writing() as connection:
            if find(connection, name) is None:
                _save(connection, _completed(Queue(name=name)))

    def update_queue(self, request: Message) -> Message:
        """UpdateQueue: make the queue if it does not exist."""
        name = check_queue(request.queue.name)
        with self.file.writing() as connection:
            found = find(connection, name)
            if found is None:
                _check_free(connection, name)
                return _save(connection, _completed(request.queue))
            _merge(request, found)
            return _save(connection, _completed(found, state=found.state))

    def get_queue(self, request: Message) -> Message:
        """GetQueue."""
        with self.file.reading() as connection:
            return existing(connection, check_queue(request.name))

    def list_queues(self, request: Message) -> Message:
        """ListQueues."""
        if request.filter:
            raise unimplemented("filters of queues")
        prefix, page = check_parent(request.parent) + "/queues/", page_of(request, 9800)
        rows = self.file.query(
            "SELECT rowid, proto FROM queues WHERE deleted IS NULL AND substr(name, 1, ?) = ? AND rowid > ? "
            "ORDER BY rowid LIMIT ?",
            *(len(prefix), prefix, page.after, page.size + 1),
        )
        found, token = page.cut(rows)
        return ListQueuesResponse(queues=[Queue.FromString(row["proto"]) for row in found], next_page_token=token)

    def delete_queue(self, request: Message) -> Message:
        """DeleteQueue: delete its tasks, and keep its name taken for some days."""
        name = check_queue(request.name)
        with self.file.writing() as connection:
            if find(connection, name) is None:
                raise not_found()
            connection.execute("UPDATE queues SET deleted = ?, state = 'DELETED' WHERE name = ?", (clock.now(), name))
            connection.execute("DELETE FROM tasks WHERE queue = ?", (name,))
            connection.execute("DELETE FROM names WHERE queue = ?", (name,))
        return empty_pb2.Empty()

    def pause_queue(self, request: Message) -> Message:
        """PauseQueue."""
        return self._change(request.name, lambda queue: setattr(queue, "state", STATES.PAUSED))

    def resume_queue(self, request: Message) -> Message:
        """ResumeQueue."""
        return self._change(request.name, lambda queue: setattr(queue, "state", STATES.RUNNING))

    def purge_queue(self, request: Message) -> Message:
        """PurgeQueue: delete its tasks."""
        return self._change(request.name, lambda queue: set_time(queue.purge_time, clock.now()), purge=True)

    def _change(self, name: str, change: Callable[[Message], None], *, purge: bool = False) -> Message:
        with self.file.writing() as connection:
            queue = existing(connection, check_queue(name))
            change(queue)
            if purge:
                remove_all(connection, name, clock.now())
            return _save(connection, queue)


def find(connection: Connection, name: str) -> Message | None:
    """Return a queue, or None."""
    row = connection.execute("SELECT proto FROM queues WHERE name = ? AND deleted IS NULL", (name,)).fetchone()
    return None if row is None else Queue.FromString(row["proto"])


def existing(connection: Connection, name: str) -> Message:
    """Return a queue. Raises ApiError if it does not exist."""
    found = find(connection, name)
    if found is None:
        raise no_such_queue()
    return found


def _check_free(connection: Connection, name: str) -> None:
    row = connection.execute("SELECT deleted FROM queues WHERE name = ?", (name,)).fetchone()
    if row is not None and row["deleted"] is None:
        raise queue_exists()
    if row is not None and clock.now() - row["deleted"] < NAME_RETENTION:
        raise queue_existed()


def _merge(request: Message, into: Message) -> None:
    """Merge the fields of the mask (the name is the same); without a mask all that can be set."""
    for path in request.update_mask.paths:
        known = field_mask_pb2.FieldMask(paths=[path]).IsValidForDescriptor(Queue.DESCRIPTOR)
        if not known or path.partition(".")[0] not in ("name", *SETTABLE):
            raise invalid(f"The field {path!r} of a queue cannot be updated.")
    if request.update_mask.paths:
        request.update_mask.MergeMessage(request.queue, into, replace_message_field=True)
        return
    for name in SETTABLE:
        into.ClearField(name)
        if request.queue.HasField(name):
            getattr(into, name).CopyFrom(getattr(request.queue, name))


def _completed(given: Message, state: int = STATES.RUNNING) -> Message:
    """Complete a queue with the service's defaults. Raises ApiError."""
    if given.HasField("http_target"):
        raise unimplemented("http_target of queues")
    if given.HasField("app_engine_routing_override"):
        raise unimplemented("app_engine_routing_override of queues: every App Engine task goes to one server")
    _check_limits(given)
    queue = Queue()
    queue.CopyFrom(given)
    queue.state = state
    limits, retry = queue.rate_limits, queue.retry_config
    limits.max_dispatches_per_second = limits.max_dispatches_per_second or 500.0
    limits.max_burst_size = min(100, max(10, math.ceil(limits.max_dispatches_per_second / 5)))
    limits.max_concurrent_dispatches = limits.max_concurrent_dispatches or 1000
    retry.max_attempts = retry.max_attempts or 100
    retry.max_doublings = retry.max_doublings or 16
    if not retry.HasField("min_backoff"):
        retry.min_backoff.FromMilliseconds(100)
    if not retry.HasField("max_backoff"):
        retry.max_backoff.FromSeconds(3600)
    return queue


def _check_limits(given: Message) -> None:
    for name, most in MOST.items():
        if not 0 <= getattr(given.rate_limits, name) <= most:
            raise invalid(f"RateLimits.{name} must be between 0 and {most}.")
    check_retry(given.retry_config)


def _save(connection: Connection, queue: Message) -> Message:
    """Write a queue, and the columns that the dispatcher reads."""
    limits = queue.rate_limits
    connection.execute(
        _SAVE,
        (
            queue.name,
            STATES(queue.state).name,
            queue.SerializeToString(),
            json.dumps(asdict(retry_options(queue.retry_config))),
            limits.max_concurrent_dispatches,
            limits.max_dispatches_per_second,
            limits.max_burst_size,
            limits.max_burst_size,
            clock.now(),
        ),
    )
    return queue
