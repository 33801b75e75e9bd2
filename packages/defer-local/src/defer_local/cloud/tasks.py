"""The calls of the API for tasks."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from sqlite3 import Connection
from threading import Lock
from typing import Any

from google.cloud import tasks_v2
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2

from defer_core.spi import clock

from ..queue import DurableQueue
from ..queued import QueuedTask
from ..rows import find_task, remove, update
from .answers import ApiError, invalid, not_found, task_exists, task_is_over
from .messages import Message, queued, shown, stored
from .names import check_queue, split_task
from .pages import page_of
from .queues import existing

ListTasksResponse: Any = tasks_v2.ListTasksResponse.pb()
BatchCreateTasksResponse: Any = tasks_v2.BatchCreateTasksResponse.pb()
BatchCreateTasksMetadata: Any = tasks_v2.BatchCreateTasksMetadata.pb()
BATCH = 100
"""Tasks in one BatchCreateTasks."""
OPERATIONS = 1000
"""Operations that are kept, because clients may ask for them again."""


class TaskCalls:
    """One method for each RPC: it takes the request, returns the answer, raises ApiError."""

    def __init__(self, queue: DurableQueue) -> None:
        self.queue = queue
        self.file = queue.file
        self._lock = Lock()
        self._operations: OrderedDict[str, Message] = OrderedDict()

    def create_task(self, request: Message) -> Message:
        """CreateTask."""
        [answer] = self._create(check_queue(request.parent), [request])
        if isinstance(answer, ApiError):
            raise answer
        return answer

    def batch_create_tasks(self, request: Message) -> Message:
        """BatchCreateTasks: return a finished operation, with the refusals by index in its metadata."""
        parent, requests = check_queue(request.parent), request.requests
        name = f"{parent}/operations/{request.request_id or uuid.uuid4()}"
        with self._lock:
            repeated = self._operations.get(name)
        if repeated is not None:
            return repeated
        if not 1 <= len(requests) <= BATCH:
            raise invalid(f"The number of requests must be between 1 and {BATCH}.")
        if any(each.parent != parent for each in requests):
            raise invalid("The parent of every request must be the parent of the batch.")
        metadata = BatchCreateTasksMetadata()
        metadata.start_time.GetCurrentTime()
        operation = _operation(name, self._create(parent, requests), metadata)
        with self._lock:
            self._operations[name] = operation
            if len(self._operations) > OPERATIONS:
                self._operations.popitem(last=False)
        return operation

    def get_operation(self, request: Message) -> Message:
        """GetOperation, among the last."""
        with self._lock:
            found = self._operations.get(request.name)
        if found is None:
            raise not_found()
        return found

    def _create(self, parent: str, requests: Sequence[Message]) -> list[Message | ApiError]:
        """Create tasks; return the answers of CreateTask by index. Raises ApiError if there is no such queue."""
        with self.file.reading() as connection:
            existing(connection, parent)
        now = clock.now()
        answers: list[Message | ApiError] = []
        taken: dict[int, QueuedTask] = {}
        for index, request in enumerate(requests):
            try:
                task = queued(stored(request.task, parent, now), parent, now)
                taken[index] = task
                answers.append(shown(task, request.response_view))
            except ApiError as error:
                answers.append(error)
        for index, was in zip(taken, self.queue.add(list(taken.values())), strict=True):
            if not was:
                answers[index] = task_exists()
        return answers

    def get_task(self, request: Message) -> Message:
        """GetTask."""
        queue, name = split_task(request.name)
        with self.file.reading() as connection:
            task = find_task(connection, queue, name)
        if task is None:
            raise task_is_over() if self.queue.was_there(queue, name) else not_found()
        return shown(task, request.response_view)

    def list_tasks(self, request: Message) -> Message:
        """ListTasks, in the order of their creation."""
        parent, page = check_queue(request.parent), page_of(request, 1000)
        with self.file.reading() as connection:
            existing(connection, parent)
        tasks, token = page.cut(self.queue.numbered(parent, after=page.after, limit=page.size + 1))
        return ListTasksResponse(tasks=[shown(task, request.response_view) for _, task in tasks], next_page_token=token)

    def delete_task(self, request: Message) -> Message:
        """DeleteTask."""
        queue, name = split_task(request.name)
        with self.file.writing() as connection:
            if not remove(connection, queue, name, clock.now()):
                raise not_found()
        return empty_pb2.Empty()

    def run_task(self, request: Message) -> Message:
        """RunTask: run it now, even before its time or in a paused queue."""
        queue, name = split_task(request.name)
        with self.file.writing() as connection:
            task = find_task(connection, queue, name)
            if task is None:
                raise not_found()
            return shown(_forced(connection, task), request.response_view)


def _forced(connection: Connection, task: QueuedTask) -> QueuedTask:
    if task.owner is not None:
        return task
    forced = replace(task, due=clock.now(), forced=True)
    update(connection, forced)
    return forced


def _operation(name: str, answers: Sequence[Message | ApiError], metadata: Message) -> Message:
    response = BatchCreateTasksResponse()
    for index, answer in enumerate(answers):
        if isinstance(answer, ApiError):
            failure = metadata.failed_requests[index]
            failure.code, failure.message = answer.code.value[0], answer.message
        else:
            response.tasks.append(answer)
    failed, states = len(metadata.failed_requests), tasks_v2.BatchCreateTasksMetadata.State
    metadata.end_time.GetCurrentTime()
    metadata.state = (
        states.SUCCEEDED if not failed else states.FAILED if failed == len(answers) else states.PARTIALLY_SUCCEEDED
    )
    operation = operations_pb2.Operation(name=name, done=True)
    operation.metadata.Pack(metadata)
    operation.response.Pack(response)
    return operation
