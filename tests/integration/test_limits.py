"""Limits, at the byte: what is inline, what is claimed, what is split, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import services
from testapp import tasks

from defer_core import defer
from defer_core.errors import PayloadTooLargeError, TaskSizeRefusedError, TaskTooLargeError
from defer_core.record import State, new_id
from defer_core.stores.base import MAX_PAYLOAD, TaskStore
from defer_core.stores.memory import MemoryStore
from defer_core.stores.sqlite import SQLiteTaskStore
from defer_core.testing import MemoryTransport, drain, in_memory
from defer_core.transports.base import Message
from defer_core.wire.envelope import decode
from defer_core.wire.frame import unwrap

LIMIT = 100 * 1024
"""The inline limit where nothing else is configured."""
ENTITY = 1_048_572
"""Bytes of an entity of the Datastore."""


class Service(MemoryTransport):
    """A queue with a limit of its own, which ours does not know."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def send(self, message: Message) -> str:
        if len(message.body) > self.limit:
            raise TaskSizeRefusedError("Task size too large")
        return super().send(message)


@pytest.fixture(params=["memory", "sqlite", "ndb"])
def store(request: pytest.FixtureRequest) -> Iterator[TaskStore]:
    if request.param == "memory":
        yield MemoryStore()
    elif request.param == "sqlite":
        made = SQLiteTaskStore(file=request.getfixturevalue("tmp_path") / "store.sqlite3")
        yield made
        made.close()
    else:
        services.library("google.cloud.ndb")
        from defer_core.stores.ndb.store import NdbTaskStore

        address = request.getfixturevalue("firestore")
        request.getfixturevalue("monkeypatch").setenv("DATASTORE_EMULATOR_HOST", address)
        yield NdbTaskStore(project=services.PROJECT, namespace=f"limits-{new_id()}")


@pytest.fixture
def queue(store: TaskStore) -> Iterator[MemoryTransport]:
    tasks.calls.clear()
    with in_memory(store=store) as transport:
        yield transport


def sized(body: int) -> bytes:
    """Random bytes that make a task's body so long; what goes around them has a length of its own."""
    with in_memory(inline_limit=10**7, transport=MemoryTransport(max_body=10**7)):
        data = os.urandom(body - 500)
        around = defer(tasks.record, data).size - len(data)
    return os.urandom(body - around)


def is_claim_check(message: Message) -> bool:
    return decode(unwrap(message.body)).claim_check is not None


def payload_of(store: TaskStore, record_id: str | None) -> bytes | None:
    record = store.get(record_id or "")
    assert record is not None
    return record.payload


@pytest.mark.parametrize("size, claimed", [(LIMIT - 1, False), (LIMIT, False), (LIMIT + 1, True)])
def test_the_inline_limit_bounds_the_body_as_sent(
    queue: MemoryTransport, store: TaskStore, size: int, claimed: bool
) -> None:
    data = sized(size)
    handle = defer(tasks.record, data)
    [task] = queue.queued()
    assert is_claim_check(task.message) is claimed and len(task.message.body) <= LIMIT
    assert claimed or len(task.message.body) == size
    assert (payload_of(store, handle.record_id) is not None) is claimed
    drain()
    assert tasks.calls == [(data,)]


def test_a_configured_limit_is_the_limit(store: TaskStore) -> None:
    with in_memory(store=store, inline_limit=5000) as queue:
        defer(tasks.record, sized(5000))
        defer(tasks.record, sized(5001))
        assert [is_claim_check(task.message) for task in queue.queued()] == [False, True]


def test_a_small_task_may_have_the_limit_and_not_a_byte_more(queue: MemoryTransport, store: TaskStore) -> None:
    data = sized(LIMIT)
    defer(tasks.record, data, _small_task=True)
    with pytest.raises(TaskTooLargeError) as caught:
        defer(tasks.record, data + b"x", _small_task=True)
    assert (caught.value.size, caught.value.limit) == (LIMIT + 1, LIMIT)
    assert len(queue.queued()) == 1 and store.count(State.PENDING) == 0


def test_the_service_s_own_limit_is_answered_by_a_claim(store: TaskStore) -> None:
    tasks.calls.clear()
    with in_memory(store=store, transport=Service(3000)) as queue:
        fits, over = sized(3000), sized(3001)
        first, second = defer(tasks.record, fits), defer(tasks.record, over)
        assert first.was_enqueued and second.was_enqueued
        assert [is_claim_check(task.message) for task in queue.queued()] == [False, True]
        drain()
    assert sorted(tasks.calls) == sorted([(fits,), (over,)])


@pytest.mark.parametrize("size", [ENTITY - 1, ENTITY, ENTITY + 1, 3 * ENTITY, MAX_PAYLOAD], ids=str)
def test_a_payload_of_one_entity_or_of_several_runs(queue: MemoryTransport, store: TaskStore, size: int) -> None:
    data = payload(size)
    handle = defer(tasks.record, data)
    kept = payload_of(store, handle.record_id)
    assert kept is not None and len(kept) == size
    drain()
    assert tasks.calls == [(data,)] and store.get(handle.record_id or "") is None


def test_a_byte_over_what_a_store_takes_is_refused(queue: MemoryTransport, store: TaskStore) -> None:
    with pytest.raises(PayloadTooLargeError, match="defer its key") as caught:
        defer(tasks.record, payload(MAX_PAYLOAD + 1))
    assert (caught.value.size, caught.value.limit) == (MAX_PAYLOAD + 1, MAX_PAYLOAD)
    assert queue.queued() == [] and store.count(State.PENDING) == 0


def payload(size: int) -> bytes:
    """Random bytes that make a payload so long."""
    with in_memory(store=MemoryStore()) as queue:
        probe = os.urandom(size // 2)
        defer(tasks.record, probe)
        claim = decode(unwrap(queue.queued()[0].message.body)).claim_check
    assert claim is not None
    return os.urandom(size - claim.size + len(probe))
