"""What every Transport promises, run against every adapter.

An adapter is a function that takes pytest's request and returns a fresh transport, and a function that says what its
queue has: (queue, name, body) of each task.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import services

from defer_core.errors import TaskAlreadyExistsError
from defer_core.record import new_id
from defer_core.task import RetryOptions, Routing
from defer_core.transports.base import Message, Transport

Queued = list[tuple[str, str, bytes]]
Adapter = tuple[Transport, Callable[[], Queued]]


def memory(request: pytest.FixtureRequest) -> Adapter:
    from defer_core.transports.memory import MemoryTransport

    transport = MemoryTransport()
    return transport, lambda: [(t.message.routing.queue, t.name, t.message.body) for t in transport.queued()]


def local(request: pytest.FixtureRequest) -> Adapter:
    from defer_local.transport import LocalTransport

    transport = LocalTransport(file=request.getfixturevalue("tmp_path") / "queue.sqlite3")
    return transport, lambda: [(t.queue, t.name, t.body) for t in transport.queue.tasks()]


def cloud(request: pytest.FixtureRequest, *, batches: bool) -> Adapter:
    services.library("grpc")
    services.library("google.cloud.tasks_v2")
    from cloud_server import CloudServer, serving

    from defer_core.transports.cloud_tasks import CloudTasksTransport

    running = serving(CloudServer(batches=batches))
    server = running.__enter__()
    request.addfinalizer(lambda: running.__exit__(None, None, None))
    transport = CloudTasksTransport(project="p", location="l", emulator_host=f"127.0.0.1:{server.port}")

    def queued() -> Queued:
        return [(*task.name.split("/")[5::2], task.app_engine_http_request.body) for task in server.tasks]

    return transport, queued


def appengine(request: pytest.FixtureRequest) -> Adapter:
    testbed = services.library("google.appengine.ext.testbed")
    from defer_core.transports.appengine import AppEngineTransport

    folder, names = request.getfixturevalue("tmp_path"), ("mail", "a", "b")
    (folder / "queue.yaml").write_text("queue:\n" + "".join(f"- name: {name}\n  rate: 1/s\n" for name in names))
    bed = testbed.Testbed()
    bed.activate()
    request.addfinalizer(bed.deactivate)
    bed.init_datastore_v3_stub()
    bed.init_taskqueue_stub(root_path=str(folder))
    stub = bed.get_stub("taskqueue")

    def queued() -> Queued:
        queues = ("default", *names)
        return [(queue, t.name, t.payload) for queue in queues for t in stub.get_filtered_tasks(queue_names=queue)]

    return AppEngineTransport(), queued


def cloud_on_local(request: pytest.FixtureRequest) -> Adapter:
    """The transport of Cloud Tasks on the server that `defer-local --grpc` runs."""
    services.library("grpc")
    services.library("google.cloud.tasks_v2")
    from defer_core.queues import QueueAdmin, QueueSettings
    from defer_core.transports.cloud_tasks import CloudTasksTransport
    from defer_local.cloud.server import CloudTasksServer

    server = CloudTasksServer(file=request.getfixturevalue("tmp_path") / "queue.sqlite3")
    server.start()
    request.addfinalizer(server.stop)
    transport = CloudTasksTransport(emulator_host=f"127.0.0.1:{server.port}")
    for name in ("default", "mail", "a", "b"):
        QueueAdmin(transport).create(QueueSettings(name=name))
    return transport, lambda: [(t.queue.rpartition("/")[2], t.name, t.body) for t in server.queue.tasks()]


ADAPTERS: dict[str, Callable[[pytest.FixtureRequest], Adapter]] = {
    "appengine": appengine,
    "memory": memory,
    "local": local,
    "cloud": lambda request: cloud(request, batches=False),
    "cloud with batches": lambda request: cloud(request, batches=True),
    "cloud on local": cloud_on_local,
}


@pytest.fixture(params=sorted(ADAPTERS))
def adapter(request: pytest.FixtureRequest) -> Iterator[Adapter]:
    transport, queued = ADAPTERS[request.param](request)
    yield transport, queued
    transport.close()


def message(body: bytes = b"body", **routing: Any) -> Message:
    return Message(body=body, routing=Routing(**({"url": "/_ah/queue/deferred"} | routing)))


def test_a_task_is_queued_under_the_name_that_is_returned(adapter: Adapter) -> None:
    transport, queued = adapter
    name = transport.send(message(queue="mail"))
    assert name and queued() == [("mail", name, b"body")]


def test_a_task_gets_the_name_that_it_asks_for(adapter: Adapter) -> None:
    transport, queued = adapter
    assert transport.send(message(name="N_1-a")) == "N_1-a"
    assert queued() == [("default", "N_1-a", b"body")]


def test_nameless_tasks_get_names_of_their_own(adapter: Adapter) -> None:
    transport, queued = adapter
    names = {transport.send(message()) for _ in range(20)}
    assert len(names) == len(queued()) == 20


def test_a_name_is_refused_while_it_is_taken(adapter: Adapter) -> None:
    transport, queued = adapter
    if not transport.supports_names:
        pytest.skip("This queue does not refuse names.")
    transport.send(message(b"first", name="n"))
    with pytest.raises(TaskAlreadyExistsError):
        transport.send(message(b"second", name="n"))
    assert queued() == [("default", "n", b"first")]


def test_a_name_is_another_in_another_queue(adapter: Adapter) -> None:
    transport, queued = adapter
    transport.send(message(name="n", queue="a"))
    transport.send(message(name="n", queue="b"))
    assert sorted(queued()) == [("a", "n", b"body"), ("b", "n", b"body")]


@pytest.mark.parametrize("body", [b"", b"\x00\xff" * 7, b"\xc1" * 100_000, "largest"], ids=["0", "14", "100000", "max"])
def test_a_body_arrives_as_it_was(adapter: Adapter, body: Any) -> None:
    transport, queued = adapter
    body = b"z" * transport.max_body if body == "largest" else body
    transport.send(message(body))
    assert queued()[0][2] == body


def test_every_routing_is_taken(adapter: Adapter) -> None:
    transport, queued = adapter
    transport.send(
        message(
            name=new_id(),
            queue="mail",
            eta=time.time() + 3600.5,
            headers={"X-A": "b"},
            service="s",
            version="v",
            instance="i",
            retry=RetryOptions(max_attempts=3, min_backoff=0.5, max_backoff=2, max_doublings=1, max_retry_duration=60),
            dispatch_deadline=30.0,
        )
    )
    transport.send(message(eta=time.time() - 60))
    assert len(queued()) == 2


def test_a_check_sends_nothing(adapter: Adapter) -> None:
    transport, queued = adapter
    transport.check(message(name=new_id(), eta=time.time() + 60, dispatch_deadline=30.0).routing)
    assert queued() == []


def test_many_are_answered_in_their_order(adapter: Adapter) -> None:
    transport, queued = adapter
    messages = [message(str(number).encode(), name=f"n-{number}") for number in range(230)]
    assert transport.send_many(messages) == [f"n-{number}" for number in range(230)]
    assert sorted(queued()) == sorted(("default", f"n-{number}", str(number).encode()) for number in range(230))


def test_many_without_names_get_names(adapter: Adapter) -> None:
    transport, queued = adapter
    answers = transport.send_many([message(str(number).encode()) for number in range(30)])
    by_name = {name: body for _, name, body in queued()}
    assert [by_name[str(answer)] for answer in answers] == [str(number).encode() for number in range(30)]


def test_one_refusal_among_many_concerns_nobody_else(adapter: Adapter) -> None:
    transport, queued = adapter
    if not transport.supports_names:
        pytest.skip("This queue does not refuse names.")
    transport.send(message(name="n-1"))
    answers = transport.send_many([message(name=f"n-{number}", queue="default") for number in range(3)])
    assert (answers[0], answers[2]) == ("n-0", "n-2")
    assert isinstance(answers[1], TaskAlreadyExistsError)
    assert len(queued()) == 3


def test_many_may_be_none_and_of_several_queues(adapter: Adapter) -> None:
    transport, queued = adapter
    assert transport.send_many([]) == []
    answers = transport.send_many([message(name=f"n-{number}", queue="ab"[number % 2]) for number in range(6)])
    assert answers == [f"n-{number}" for number in range(6)]
    assert [queue for queue, _, _ in sorted(queued())] == ["a"] * 3 + ["b"] * 3


def test_it_says_whether_it_has_transactions(adapter: Adapter) -> None:
    transport, queued = adapter
    assert transport.in_transaction() is False
    if not transport.supports_transactions:
        with pytest.raises(NotImplementedError):
            transport.send_in_transaction(message())
        assert queued() == []


def test_threads_may_share_it(adapter: Adapter) -> None:
    transport, queued = adapter
    errors: list[BaseException] = []

    def worker() -> None:
        try:
            for _ in range(5):
                transport.send(message())
        except BaseException as error:
            errors.append(error)
        finally:
            if transport.name == "local":
                transport.close()

    threads = [threading.Thread(target=worker) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors and len(queued()) == 30


def test_it_can_be_closed_more_than_once_and_used_again(adapter: Adapter) -> None:
    transport, queued = adapter
    transport.close()
    transport.send(message())
    transport.close()
    transport.close()
    assert len(queued()) == 1
