"""A small Cloud Tasks server for tests and benchmarks: it keeps what it gets, and answers as it is told.

`python tests/cloud_server.py PORT [DELAY] [--tls FOLDER]` serves until it is killed.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from defer_core.transports.cloud.message import protobuf

SERVICE = "google.cloud.tasks.v2.CloudTasks"
MAX_TASK = 1_048_569
"""Bytes of a task that production takes."""
QUEUE_MISSING = (
    "Queue does not exist. If you just created the queue, wait at least a minute for the queue to initialize."
)


@dataclass
class CloudServer:
    """What the server has got, and how it is to answer."""

    tasks: list[Any] = field(default_factory=list)
    """The tasks that it took, in their order."""
    metadata: list[dict[str, str]] = field(default_factory=list)
    """The metadata of each call."""
    calls: list[str] = field(default_factory=list)
    """The method of each call."""
    errors: list[tuple[grpc.StatusCode, str] | None] = field(default_factory=list)
    """What the next CreateTask calls answer; None is as usual."""
    lose_answers: int = 0
    """How many of the next CreateTask calls take the task and then answer UNAVAILABLE."""
    missing_queues: set[str] = field(default_factory=set)
    """Short names of queues that are not there."""
    batches: bool = False
    """Whether BatchCreateTasks is there."""
    batch_errors: list[tuple[grpc.StatusCode, str]] = field(default_factory=list)
    """What the next BatchCreateTasks calls answer."""
    operation_errors: list[tuple[grpc.StatusCode, str]] = field(default_factory=list)
    """What the operations of the next BatchCreateTasks calls end with."""
    polls: int = 0
    """How often a batch must be asked for until it is done; 0 is done at once."""
    stuck: str = ""
    """The short name of a task whose batch is never done."""
    poll_errors: list[grpc.StatusCode] = field(default_factory=list)
    """What the next GetOperation calls answer."""
    delay: float = 0.0
    """Seconds before an answer."""
    keeps: bool = True
    """Whether it keeps what it gets."""
    names: set[str] = field(default_factory=set)
    """The names that are taken."""
    port: int = 0
    """Where it listens."""
    _numbers: Any = field(default_factory=itertools.count)
    _operations: dict[str, Any] = field(default_factory=dict)

    def create(self, request: Any, context: grpc.ServicerContext) -> Any:
        """CreateTask."""
        self._note("CreateTask", context)
        if self.errors and (error := self.errors.pop(0)) is not None:
            context.abort(*error)
        if refused := self._refusal(request):
            context.abort(*refused)
        taken = self._take(request)
        if self.lose_answers:
            self.lose_answers -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset")
        return taken

    def batch_create(self, request: Any, context: grpc.ServicerContext) -> Any:
        """BatchCreateTasks: an operation, which is done once it has been asked for `polls` times."""
        self._note("BatchCreateTasks", context)
        if not self.batches:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "no batches")
        if self.batch_errors:
            context.abort(*self.batch_errors.pop(0))
        pb = protobuf()
        if self.operation_errors:
            code, details = self.operation_errors.pop(0)
            failed = pb.Operation(name=f"{request.parent}/operations/{next(self._numbers)}", done=True)
            failed.error.code, failed.error.message = code.value[0], details
            return failed
        answer, about = pb.BatchCreateTasksResponse(), pb.BatchCreateTasksMetadata()
        for index, each in enumerate(request.requests):
            if refused := self._refusal(each):
                about.failed_requests[index].code, about.failed_requests[index].message = (
                    refused[0].value[0],
                    refused[1],
                )
            else:
                answer.tasks.append(self._take(each))
        operation = pb.Operation(name=f"{request.parent}/operations/{next(self._numbers)}", done=True)
        operation.response.Pack(answer)
        operation.metadata.Pack(about)
        self._operations[operation.name] = operation
        return pb.Operation(name=operation.name) if self.polls else operation

    def get_operation(self, request: Any, context: grpc.ServicerContext) -> Any:
        """GetOperation."""
        self._note("GetOperation", context)
        if self.poll_errors:
            context.abort(self.poll_errors.pop(0), "not now")
        self.polls -= 1
        created, done = protobuf().BatchCreateTasksResponse(), self._operations[request.name]
        done.response.Unpack(created)
        is_stuck = any(self.stuck and task.name.endswith(f"/{self.stuck}") for task in created.tasks)
        return protobuf().Operation(name=request.name) if self.polls > 0 or is_stuck else done

    def _note(self, method: str, context: grpc.ServicerContext) -> None:
        if not self.keeps:
            time.sleep(self.delay)
            return
        self.calls.append(method)
        self.metadata.append({key: value for key, value in context.invocation_metadata() if isinstance(value, str)})
        if self.delay:
            time.sleep(self.delay)

    def _refusal(self, request: Any) -> tuple[grpc.StatusCode, str] | None:
        if request.parent.rpartition("/")[2] in self.missing_queues:
            return grpc.StatusCode.NOT_FOUND, QUEUE_MISSING
        if request.task.ByteSize() > MAX_TASK:
            return grpc.StatusCode.INVALID_ARGUMENT, "Task size too large"
        if request.task.name in self.names:
            return grpc.StatusCode.ALREADY_EXISTS, "Requested entity already exists"
        return None

    def _take(self, request: Any) -> Any:
        task = request.task
        task.name = task.name or f"{request.parent}/tasks/{next(self._numbers)}"
        if self.keeps:
            self.names.add(task.name)
            self.tasks.append(task)
        return protobuf().Task(name=task.name)


@contextmanager
def serving(
    server: CloudServer | None = None, *, port: int = 0, credentials: Any = None, workers: int = 8
) -> Iterator[CloudServer]:
    """Serve on the loopback, with TLS where there are server credentials."""
    server = server or CloudServer()
    pb = protobuf()
    methods = {
        "CreateTask": _unary(server.create, pb.CreateTaskRequest),
        "BatchCreateTasks": _unary(server.batch_create, pb.BatchCreateTasksRequest),
    }
    operations = {"GetOperation": _unary(server.get_operation, pb.GetOperationRequest)}
    listener = grpc.server(ThreadPoolExecutor(workers), options=[("grpc.max_receive_message_length", -1)])
    listener.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(SERVICE, methods),
            grpc.method_handlers_generic_handler("google.longrunning.Operations", operations),
        ]
    )
    where = f"127.0.0.1:{port}"
    server.port = listener.add_secure_port(where, credentials) if credentials else listener.add_insecure_port(where)
    listener.start()
    try:
        yield server
    finally:
        listener.stop(None).wait()


def _unary(handler: Any, request: Any) -> Any:
    return grpc.unary_unary_rpc_method_handler(
        handler, request_deserializer=request.FromString, response_serializer=lambda each: each.SerializeToString()
    )


def certificate(folder: Path) -> tuple[bytes, bytes]:
    """A key and a certificate for `localhost`, signed by itself, made with `openssl`."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return key.read_bytes(), certificate.read_bytes()


def main() -> None:
    """Serve until killed, keeping nothing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("delay", type=float, nargs="?", default=0.0, help="seconds before each answer")
    parser.add_argument("--tls", metavar="FOLDER", help="make a certificate there, and serve with it")
    options = parser.parse_args()
    credentials = grpc.ssl_server_credentials([certificate(Path(options.tls))]) if options.tls else None
    server = CloudServer(batches=True, delay=options.delay, keeps=False)
    with serving(server, port=options.port, credentials=credentials, workers=200 if options.delay else 4) as running:
        print(running.port, flush=True)
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
