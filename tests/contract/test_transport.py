"""What every Transport promises (`defer_core.testing.contracts`), run against every adapter.

An adapter is a function that takes pytest's request and returns a fresh transport, and a function that says what its
queue has: (queue, name, body) of each task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import services

from defer_core.spi import Transport
from defer_core.testing.contracts import Queued, TransportContract

Adapter = tuple[Transport, Queued]


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

    from defer_core.transports.cloud.transport import CloudTasksTransport

    running = serving(CloudServer(batches=batches))
    server = running.__enter__()
    request.addfinalizer(lambda: running.__exit__(None, None, None))
    transport = CloudTasksTransport(project="p", location="l", emulator_host=f"127.0.0.1:{server.port}")

    def queued() -> list[tuple[str, str, bytes]]:
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

    def queued() -> list[tuple[str, str, bytes]]:
        queues = ("default", *names)
        return [(queue, t.name, t.payload) for queue in queues for t in stub.get_filtered_tasks(queue_names=queue)]

    return AppEngineTransport(), queued


def cloud_on_local(request: pytest.FixtureRequest) -> Adapter:
    """The transport of Cloud Tasks on the server that `defer-local --grpc` runs."""
    services.library("grpc")
    services.library("google.cloud.tasks_v2")
    from defer_core.config.queues import QueueSettings
    from defer_core.transports.cloud.queues import QueueAdmin
    from defer_core.transports.cloud.transport import CloudTasksTransport
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


class TestTransports(TransportContract):
    @pytest.fixture(params=sorted(ADAPTERS))
    def adapter(self, request: pytest.FixtureRequest) -> Iterator[Adapter]:
        transport, queued = ADAPTERS[request.param](request)
        yield transport, queued
        transport.close()

    @pytest.fixture
    def transport(self, adapter: Adapter) -> Transport:
        return adapter[0]

    @pytest.fixture
    def queued(self, adapter: Adapter) -> Queued:
        return adapter[1]

    def end_thread(self, transport: Transport) -> None:
        """Close the connection of `local`, which is each thread's own."""
        if transport.name == "local":
            transport.close()
