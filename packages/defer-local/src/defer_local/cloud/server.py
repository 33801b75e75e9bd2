"""The gRPC server: Google's own, unmodified client talks to it over an insecure channel."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any, Self

import grpc
from google.cloud import tasks_v2
from google.longrunning import operations_pb2

from defer_core.errors import ConfigError
from defer_core.spi import logger, project_of_environment

from ..queue import DurableQueue
from .answers import ApiError
from .issuer import Issuer
from .messages import Message
from .names import queue_named
from .queues import QueueCalls
from .tasks import TaskCalls

log = logger("defer.local")

SERVICE, OPERATIONS = "google.cloud.tasks.v2.CloudTasks", "google.longrunning.Operations"
MAX_MESSAGE = 128 * 1024 * 1024
"""Bytes of one request: a batch of 100 tasks of the largest size."""
Call = Callable[[Message], Message]


class CloudTasksServer:
    """Serves the API on `host`:`port` over the queue in `file`, and the keys of its OIDC tokens on `issuer_port`.

    Port 0 takes a free one. Anyone who can reach the API can add tasks, so their requests do not bear the secret of the
    local queue. Raises ConfigError if it cannot listen.
    """

    def __init__(
        self, *, file: str | Path | None = None, port: int = 0, host: str = "127.0.0.1", issuer_port: int = 0
    ) -> None:
        if not 0 <= port <= 65535:  # of which gRPC would take the last 16 bits
            raise ConfigError(f"port is {port}: it is at most 65535, and 0 takes a free one.")
        self.queue = DurableQueue(file)
        options = [("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.so_reuseport", 0)]
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=options)
        self._server.add_generic_rpc_handlers(handlers(self.queue))
        try:
            self.port: int = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise ConfigError(f"The Cloud Tasks server cannot listen on {host}:{port}: {error}") from error
        self.issuer = Issuer(self.queue, issuer_port)

    def provide(self, name: str) -> None:
        """Make a queue if it does not exist, by its full name, or by a short one in the default project and location of
        the transport `cloud`. Raises ConfigError for its name."""
        project = project_of_environment() or "local"
        parent = f"projects/{project}/locations/{os.environ.get('CLOUD_TASKS_LOCATION') or 'local'}"
        try:
            QueueCalls(self.queue).provide(queue_named(name, parent))
        except ApiError as error:
            raise ConfigError(f"The queue {name!r} cannot be made: {error.message}") from error

    def start(self) -> None:
        """Begin to answer."""
        self.issuer.start()
        self._server.start()

    def stop(self, timeout: float = 3.0) -> None:
        """Stop, after up to `timeout` seconds for the requests that have come."""
        self._server.stop(timeout).wait()
        self.issuer.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()


def handlers(queue: DurableQueue) -> tuple[Any, ...]:
    """Make the services over a queue. gRPC answers any other call with UNIMPLEMENTED."""
    queues, tasks, messages = QueueCalls(queue), TaskCalls(queue), tasks_v2
    calls: dict[str, tuple[Call, Any]] = {
        "CreateQueue": (queues.create_queue, messages.CreateQueueRequest),
        "GetQueue": (queues.get_queue, messages.GetQueueRequest),
        "ListQueues": (queues.list_queues, messages.ListQueuesRequest),
        "UpdateQueue": (queues.update_queue, messages.UpdateQueueRequest),
        "DeleteQueue": (queues.delete_queue, messages.DeleteQueueRequest),
        "PauseQueue": (queues.pause_queue, messages.PauseQueueRequest),
        "ResumeQueue": (queues.resume_queue, messages.ResumeQueueRequest),
        "PurgeQueue": (queues.purge_queue, messages.PurgeQueueRequest),
        "CreateTask": (tasks.create_task, messages.CreateTaskRequest),
        "BatchCreateTasks": (tasks.batch_create_tasks, messages.BatchCreateTasksRequest),
        "GetTask": (tasks.get_task, messages.GetTaskRequest),
        "ListTasks": (tasks.list_tasks, messages.ListTasksRequest),
        "DeleteTask": (tasks.delete_task, messages.DeleteTaskRequest),
        "RunTask": (tasks.run_task, messages.RunTaskRequest),
    }
    service = {name: _handler(call, request.pb()) for name, (call, request) in calls.items()}
    operations = {"GetOperation": _handler(tasks.get_operation, operations_pb2.GetOperationRequest)}
    return (
        grpc.method_handlers_generic_handler(SERVICE, service),
        grpc.method_handlers_generic_handler(OPERATIONS, operations),
    )


def _handler(call: Call, request: Any) -> Any:
    return grpc.unary_unary_rpc_method_handler(
        _answering(call),
        request_deserializer=request.FromString,
        response_serializer=lambda answer: answer.SerializeToString(),
    )


def _answering(call: Call) -> Callable[[Message, Any], Message]:
    def answer(request: Message, context: Any) -> Message:
        try:
            return call(request)
        except ApiError as error:
            context.abort(error.code, error.message)
        except sqlite3.Error as error:
            log.exception("The queue cannot be used.")
            context.abort(grpc.StatusCode.UNAVAILABLE, f"The local queue cannot be used: {error}")
        return None

    return answer
