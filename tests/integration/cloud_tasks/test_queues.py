"""Declared queues: made, changed and stopped by command, on Google's API."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import services

from defer_core.__main__ import main
from defer_core.commands.snapshot import take
from defer_core.config import configured, current
from defer_core.config.queues import QueueSettings, parse
from defer_core.errors import ConfigError, TransportError
from defer_core.testing import MemoryTransport
from defer_core.transports.cloud.queues import QueueAdmin
from defer_core.transports.cloud.transport import CloudTasksTransport

grpc = services.library("grpc")
services.library("google.cloud.tasks_v2")


class Queues:
    """A server of the queue calls, which keeps queues by their full name."""

    def __init__(self) -> None:
        self.queues: dict[str, Any] = {}
        self.purged: list[str] = []
        self.masks: list[list[str]] = []
        self.refusal = ""

    def handlers(self) -> dict[str, Any]:
        from defer_core.transports.cloud.message import protobuf

        methods = {name: getattr(self, name) for name in dir(self) if name.endswith("Queue")}
        return {
            name: grpc.unary_unary_rpc_method_handler(
                method,
                request_deserializer=getattr(protobuf(), f"{name}Request").FromString,
                response_serializer=lambda each: each.SerializeToString(),
            )
            for name, method in methods.items()
        }

    def CreateQueue(self, request: Any, context: Any) -> Any:
        if self.refusal:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, self.refusal)
        if request.queue.name in self.queues:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, "Queue already exists")
        self.queues[request.queue.name] = request.queue
        return request.queue

    def UpdateQueue(self, request: Any, context: Any) -> Any:
        self.masks.append(list(request.update_mask.paths))
        self.queues.setdefault(request.queue.name, request.queue).MergeFrom(request.queue)
        return request.queue

    def GetQueue(self, request: Any, context: Any) -> Any:
        if request.name not in self.queues:
            context.abort(grpc.StatusCode.NOT_FOUND, "Queue does not exist.")
        return self.queues[request.name]

    def PauseQueue(self, request: Any, context: Any) -> Any:
        queue = self.GetQueue(request, context)
        queue.state = 2
        return queue

    def ResumeQueue(self, request: Any, context: Any) -> Any:
        queue = self.GetQueue(request, context)
        queue.state = 1
        return queue

    def PurgeQueue(self, request: Any, context: Any) -> Any:
        self.purged.append(request.name)
        return self.GetQueue(request, context)


@pytest.fixture
def queues() -> Queues:
    return Queues()


@pytest.fixture
def transport(queues: Queues) -> Iterator[CloudTasksTransport]:
    listener = grpc.server(ThreadPoolExecutor(2))
    service = "google.cloud.tasks.v2.CloudTasks"
    listener.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, queues.handlers())])
    port = listener.add_insecure_port("127.0.0.1:0")
    listener.start()
    yield CloudTasksTransport(project="p", location="l", emulator_host=f"127.0.0.1:{port}")
    listener.stop(None).wait()


def full(name: str) -> str:
    return f"projects/p/locations/l/queues/{name}"


def test_a_queue_is_made_once(transport: CloudTasksTransport, queues: Queues) -> None:
    admin = QueueAdmin(transport)
    settings = QueueSettings(name="mail", rate_per_second=2.5, rate_max_concurrent=3, retry_min_backoff=0.5)
    assert admin.create(settings) and not admin.create(settings)
    made = queues.queues[full("mail")]
    assert (made.rate_limits.max_dispatches_per_second, made.rate_limits.max_concurrent_dispatches) == (2.5, 3)
    assert made.retry_config.min_backoff.nanos == 500_000_000


def test_an_update_touches_what_is_declared(transport: CloudTasksTransport, queues: Queues) -> None:
    QueueAdmin(transport).update(QueueSettings(name="mail", retry_max_attempts=-1))
    assert queues.masks == [["name", "retry_config.max_attempts"]]
    assert queues.queues[full("mail")].retry_config.max_attempts == -1


def test_a_queue_is_paused_resumed_and_purged(transport: CloudTasksTransport, queues: Queues) -> None:
    admin = QueueAdmin(transport)
    admin.create(QueueSettings(name="mail"))
    admin.pause("mail")
    assert admin.state("mail") == "PAUSED"
    admin.resume("mail")
    assert admin.state("mail") == "RUNNING"
    admin.purge("mail")
    assert queues.purged == [full("mail")]


def test_the_status_has_the_state_of_each_declared_queue(transport: CloudTasksTransport, queues: Queues) -> None:
    admin = QueueAdmin(transport)
    for name in ("mail", "slow"):
        admin.create(QueueSettings(name=name))
        admin.resume(name)
    admin.pause("slow")
    with configured(transport=transport, store="memory", queues=["gone", "mail", "slow"]):
        gone, mail, slow = take(current(), 10)["queues"]
    assert (mail["state"], slow["state"], mail["tasks"]) == ("running", "paused", None)
    assert (gone["state"], "NOT_FOUND" in gone["error"]) == ("unknown", True)


def test_a_service_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def refuse(admin: QueueAdmin, name: str) -> str:
        asked.append(name)
        raise TransportError("GetQueue: UNAVAILABLE: no route", code="UNAVAILABLE")

    monkeypatch.setattr(QueueAdmin, "state", refuse)
    nowhere = CloudTasksTransport(project="p", location="l", emulator_host="127.0.0.1:1")
    with configured(transport=nowhere, store="memory", queues=["mail", "slow"]):
        mail, slow = take(current(), 10)["queues"]
    assert asked == ["mail"]
    assert (mail["state"], slow["state"], slow["error"]) == ("unknown", "unknown", "")
    assert "UNAVAILABLE" in mail["error"]


def test_what_is_wrong_with_a_new_queue_is_no_queue_that_is_there(
    transport: CloudTasksTransport, queues: Queues
) -> None:
    queues.refusal = "no such location"
    with pytest.raises(TransportError, match=r"CreateQueue.*no such location"):
        QueueAdmin(transport).create(QueueSettings(name="mail"))


def test_the_command_says_that_nothing_is_declared(
    transport: CloudTasksTransport, capsys: pytest.CaptureFixture[str]
) -> None:
    with configured(transport=transport):
        assert main(["queues", "show"]) == 1
    assert "No queues are declared" in capsys.readouterr().err


def test_an_error_says_what_cloud_tasks_said(transport: CloudTasksTransport) -> None:
    with pytest.raises(TransportError, match="PauseQueue of projects/p/locations/l/queues/gone: NOT_FOUND"):
        QueueAdmin(transport).pause("gone")


@pytest.mark.parametrize(
    "entry, message",
    [
        ({"name": "a/b"}, "short name"),
        ("under_score", "letters, digits and hyphens"),
        ({"rate_per_second": 1}, "short name"),
        ({"name": "a", "rate_per_secnd": 1}, "rate_per_second"),
        ({"name": "a", "rate_per_second": "many"}, "give a number"),
        ({"name": "a", "rate_per_second": True}, "give a number"),
    ],
)
def test_a_wrong_entry_is_named(entry: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(entry)


def test_the_command(transport: CloudTasksTransport, queues: Queues, capsys: pytest.CaptureFixture[str]) -> None:
    with configured(transport=transport, queues=["default", {"name": "mail", "rate_per_second": 1}]):
        assert main(["queues", "create"]) == 0
        assert main(["queues", "create"]) == 0
        assert main(["queues", "pause", "mail"]) == 0
        assert main(["queues", "show"]) == 0
        assert main(["queues", "update", "other"]) == 1
        assert main(["queues", "purge"]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "default: created",
        "mail: created",
        "default: there already",
        "mail: there already",
        "mail: paused",
        "default: state_unspecified",
        "mail: paused",
    ]
    assert "not declared" in said.err and "name the queues" in said.err
    assert queues.purged == []


def test_the_command_is_of_cloud_tasks_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with configured(transport=MemoryTransport(), queues=["default"]):
        assert main(["queues", "create"]) == 1
    assert "the transport is 'memory'" in capsys.readouterr().err


def test_django_declares_them_as_djangae_does(
    transport: CloudTasksTransport, queues: Queues, settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from django.core.management import call_command

    settings.DEFER = {"TRANSPORT": transport}
    settings.CLOUD_TASKS_QUEUES = [{"name": "mail", "rate_per_second": 5, "retry_max_attempts": 3}]
    call_command("defer_queues", "update")
    assert queues.queues[full("mail")].rate_limits.max_dispatches_per_second == 5
