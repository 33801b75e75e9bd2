"""`defer()` with the transport `cloud` against the local Cloud Tasks server, delivered through the real handler."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from defer_core import configure, defer, defer_many
from defer_core.config import current, reset
from defer_core.config.queues import QueueSettings
from defer_core.errors import PermanentTaskFailure, QueueNotFoundError, TaskAlreadyExistsError
from defer_core.record import State
from defer_core.stores.sqlite import SQLiteTaskStore
from defer_core.transports.cloud.queues import QueueAdmin
from defer_core.transports.cloud.transport import CloudTasksTransport
from defer_gae_handler import make_application
from defer_local import Dispatcher
from defer_local.cloud.server import CloudTasksServer

RAN: list[object] = []
FAILURES: list[Exception] = []


def work(value: object) -> None:
    if FAILURES:
        raise FAILURES.pop()
    RAN.append(value)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteTaskStore]:
    RAN.clear()
    FAILURES.clear()
    store = SQLiteTaskStore(file=tmp_path / "store.sqlite3")
    with CloudTasksServer(file=tmp_path / "queue.sqlite3") as server:
        address = f"127.0.0.1:{server.port}"
        transport = CloudTasksTransport(project="shop", location="europe-west1", emulator_host=address)
        configure(
            transport=transport,
            store=store,
            keys=["a secret of the tests"],
            authenticators=["loopback"],
            sweep_interval=0,
        )
        yield store
        transport.close()
    store.close()
    reset()


@pytest.fixture
def dispatcher(store: SQLiteTaskStore, tmp_path: Path) -> Dispatcher:
    transport = current().the_transport
    assert isinstance(transport, CloudTasksTransport)
    QueueAdmin(transport).update(QueueSettings(name="default", retry_min_backoff=0.01))
    return Dispatcher(file=tmp_path / "queue.sqlite3", target=make_application())


def test_small_large_and_failing_tasks_are_done(store: SQLiteTaskStore, dispatcher: Dispatcher) -> None:
    large = "x" * 300_000
    FAILURES.extend([ValueError("once"), ValueError("twice")])
    defer(work, 1)
    defer(work, large)
    dispatcher.run_until_idle()
    assert sorted(RAN, key=str) == [1, large]
    assert store.count(State.SENT) == 0


def test_many_are_sent_and_done(store: SQLiteTaskStore, dispatcher: Dispatcher) -> None:
    handles = defer_many(work, [(number,) for number in range(250)])
    assert all(handle.was_enqueued for handle in handles)
    dispatcher.run_until_idle()
    assert sorted(RAN, key=int) == list(range(250))  # type: ignore[call-overload]


def test_a_permanent_failure_is_a_dead_letter(store: SQLiteTaskStore, dispatcher: Dispatcher) -> None:
    FAILURES.append(PermanentTaskFailure("never"))
    defer(work, 1)
    dispatcher.run_until_idle()
    [dead] = store.list(State.DEAD)
    assert (dead.reason, RAN) == ("permanent", [])


def test_refusals_are_told_by_their_names(store: SQLiteTaskStore, dispatcher: Dispatcher) -> None:
    defer(work, 1, _name="once")
    with pytest.raises(TaskAlreadyExistsError):
        defer(work, 2, _name="once")
    with pytest.raises(QueueNotFoundError):
        defer(work, 3, _queue="missing")
    dispatcher.run_until_idle()
    assert RAN == [1]
