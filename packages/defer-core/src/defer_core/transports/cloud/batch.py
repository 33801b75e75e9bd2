"""Many tasks to Cloud Tasks at once: a hundred in a call, or a hundred calls at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from ...errors import AmbiguousSendError, TransportError
from .channel import Connection
from .errors import RETRIED, from_rpc, from_status
from .message import protobuf, short_name

Answer = str | TransportError
"""The short name of a task that was taken, or why it was not."""
IN_FLIGHT = 100
"""Calls under way at once."""
MAX_BATCH, MAX_BATCH_BYTES = 100, 3_500_000
"""Tasks in one call, and bytes: a gRPC server takes messages of 4 MiB."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds before a batch that is not done yet is polled again: the wait doubles from the first to the second."""
_LEFT_TO_SINGLE_CALLS = RETRIED | {"UNIMPLEMENTED", "INVALID_ARGUMENT"}
"""Answers to a whole batch that say nothing of its tasks."""


def pipelined(connection: Connection, requests: Sequence[Any], timeout: float) -> list[Answer]:
    """Send each task in a call of its own, many concurrently."""
    answers: list[Answer] = []
    under_way: deque[tuple[Any, Any]] = deque()
    for request in requests:
        if len(under_way) == IN_FLIGHT:
            answers.append(_answer(*under_way.popleft()))
        under_way.append((_start(connection, request, timeout), request))
    answers.extend(_answer(call, request) for call, request in under_way)
    return answers


def _start(connection: Connection, request: Any, timeout: float) -> Any:
    """Return the call that is under way, or the error if there is no token."""
    try:
        return connection.create_task.future(request, timeout, connection.metadata(request.parent))
    except TransportError as error:
        return error


def _answer(call: Any, request: Any) -> Answer:
    import grpc

    if isinstance(call, TransportError):
        return call
    try:
        return short_name(call.result().name)
    except grpc.RpcError as error:
        return from_rpc(error, request)


def batched(connection: Connection, requests: dict[int, Any], timeout: float) -> tuple[dict[int, Answer], bool]:
    """Return the answers, by index, that batches have given; and True if the service has batches and answers them at
    once."""
    try:
        calls = [
            (some, connection.batch_create_tasks.future(batch, timeout, connection.metadata(batch.parent)))
            for some, batch in _batches(requests)
        ]
    except TransportError:
        return {}, True  # there is no token: each single call will say so
    answers: dict[int, Answer] = {}
    at_once, until = True, time.monotonic() + timeout
    for some, call in calls:
        found, done = _batch_answers(connection, call, {index: requests[index] for index in some}, until)
        answers.update(found)
        at_once = at_once and done
    return answers, at_once


def _batches(requests: dict[int, Any]) -> Iterator[tuple[list[int], Any]]:
    """Yield the requests by queue, as many as one call takes; a single one is no batch."""
    queues: dict[str, list[int]] = {}
    for index, request in requests.items():
        queues.setdefault(request.parent, []).append(index)
    for parent, indices in queues.items():
        for some in _chunks(indices, requests):
            if len(some) > 1:
                batch = protobuf().BatchCreateTasksRequest(parent=parent)
                batch.requests.extend(requests[index] for index in some)
                yield some, batch


def _chunks(indices: list[int], requests: dict[int, Any]) -> Iterator[list[int]]:
    some: list[int] = []
    size = 0
    for index in indices:
        more = requests[index].ByteSize() + 10
        if some and (len(some) == MAX_BATCH or size + more > MAX_BATCH_BYTES):
            yield some
            some, size = [], 0
        some.append(index)
        size += more
    yield some


def _batch_answers(
    connection: Connection, call: Any, requests: dict[int, Any], until: float
) -> tuple[dict[int, Answer], bool]:
    import grpc

    try:
        operation = call.result()
    except grpc.RpcError as error:
        code = error.code().name
        if code in _LEFT_TO_SINGLE_CALLS:
            return {}, code != "UNIMPLEMENTED"
        return {index: from_rpc(error, request) for index, request in requests.items()}, True
    done = bool(operation.done)
    return _operation_answers(operation if done else _waited_for(connection, operation, until), requests), done


def _waited_for(connection: Connection, operation: Any, until: float) -> Any:
    """Return a long-running operation once it is done; or as it is, if the time is over or it cannot be polled. It is
    polled at least once, since other batches may have used up the time. The batch was taken: whatever fails here, its
    tasks must not be sent again."""
    import grpc

    pause = FIRST_PAUSE
    while not operation.done:
        left = until - time.monotonic()
        time.sleep(max(min(pause, left), 0.0))
        pause = min(pause * 2, LONGEST_PAUSE)
        try:
            operation = connection.get_operation(operation.name, max(until - time.monotonic(), LONGEST_PAUSE))
        except grpc.RpcError as error:
            if error.code().name not in RETRIED:
                break
        except TransportError:  # no token
            break
        if left <= 0:
            break
    return operation


def _operation_answers(operation: Any, requests: dict[int, Any]) -> dict[int, Answer]:
    pb = protobuf()
    if not operation.done:
        error = "The batch was taken, but its outcome is unknown: the operation is not done."
        return {index: AmbiguousSendError(error) for index in requests}
    about, created = pb.BatchCreateTasksMetadata(), pb.BatchCreateTasksResponse()
    operation.metadata.Unpack(about)
    operation.response.Unpack(created)
    if not about.failed_requests and operation.HasField("error"):
        return {index: _status(operation.error, request) for index, request in requests.items()}
    names = iter(created.tasks)
    answers: dict[int, Answer] = {}
    for position, (index, request) in enumerate(requests.items()):
        if position in about.failed_requests:
            answers[index] = _status(about.failed_requests[position], request)
        else:
            task = next(names, request.task)
            answers[index] = short_name(request.task.name or task.name)
    return answers


def _status(status: Any, request: Any) -> TransportError:
    import grpc

    code = next((each.name for each in grpc.StatusCode if each.value[0] == status.code), "UNKNOWN")
    return from_status(code, status.message, request)
