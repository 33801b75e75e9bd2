"""The calls of the API that are about tasks."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from threading import Lock
from typing import Any

from google.cloud import tasks_v2
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2

from defer_core import clock
from defer_core.sqlite_file import Connection

from ..queue import DurableQueue, find_task, remove, update
from ..queued import QueuedTask
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
"""Operations that are remembered, for repeated requests."""


class TaskCalls:
    """One method an RPC: takes the request, returns the answer, raises ApiError."""

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
        """BatchCreateTasks: an operation that is done; what was refused is in its metadata, by index."""
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
        """GetOperation, of the last ones."""
        with self._lock:
            found = self._operations.get(request.name)
        if found is None:
            raise not_found()
        return found

    def _create(self, parent: str, requests: Sequence[Message]) -> list[Message | ApiError]:
        """The answers by index, in the words of a single CreateTask. Raises ApiError where there is no such queue."""
        existing(self.file.connection(), parent)
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
        task = find_task(self.file.connection(), queue, name)
        if task is None:
            raise task_is_over() if self.queue.was_there(queue, name) else not_found()
        return shown(task, request.response_view)

    def list_tasks(self, request: Message) -> Message:
        """ListTasks, in the order in which they were created."""
        parent, page = check_queue(request.parent), page_of(request, 1000)
        existing(self.file.connection(), parent)
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
        """RunTask: now, though it be scheduled for later or its queue be paused."""
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
