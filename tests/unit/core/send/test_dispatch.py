"""The queue's answer, and what becomes of the record: refused, unavailable, silent, taken already, too large."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from defer_core import defer, defer_many
from defer_core.errors import (
    AmbiguousSendError,
    QueueNotFoundError,
    TaskAlreadyExistsError,
    TaskSizeRefusedError,
    TaskTooLargeError,
    TransportUnavailableError,
)
from defer_core.record import State
from defer_core.send.handle import Status
from defer_core.testing import MemoryStore, MemoryTransport, drain, in_memory
from defer_core.transports.base import Message
from defer_core.wire.envelope import decode
from defer_core.wire.frame import unwrap

calls: list[Any] = []


def note(*args: Any, **kwargs: Any) -> None:
    calls.append((args, kwargs))


class Faulty(MemoryTransport):
    """Answers the next sends with the given errors; `taken` says that the queue took the task all the same."""

    def __init__(self, *errors: Exception, taken: bool = False) -> None:
        super().__init__()
        self.errors, self.taken, self.sends = list(errors), taken, 0

    def send(self, message: Message) -> str:
        self.sends += 1
        if self.errors:
            if self.taken:
                super().send(message)
            raise self.errors.pop(0)
        return super().send(message)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def queue(store: MemoryStore) -> Iterator[MemoryTransport]:
    calls.clear()
    with in_memory(store=store) as transport:
        yield transport


def test_a_queue_that_refuses_makes_defer_raise_and_leaves_nothing(store: MemoryStore) -> None:
    with in_memory(transport=Faulty(QueueNotFoundError("no queue 'x'")), store=store):
        with pytest.raises(QueueNotFoundError, match="no queue 'x'"):
            defer(note)
    assert store.records == {}


@pytest.mark.parametrize("error", [TransportUnavailableError(), AmbiguousSendError()])
def test_an_unavailable_queue_leaves_the_task_to_the_sweep(store: MemoryStore, error: Exception) -> None:
    with in_memory(transport=Faulty(error), store=store):
        handle = defer(note)
    assert handle.status is Status.WAITS_FOR_SWEEP and not handle.was_enqueued
    [record] = store.records.values()
    assert (record.state, record.attempts) == (State.PENDING, 1)
    assert (record.doubtful_since is not None) == isinstance(error, AmbiguousSendError)
    assert record.routing.name == handle.name


@pytest.mark.parametrize("error", [TransportUnavailableError(), AmbiguousSendError()])
def test_a_small_task_that_may_not_have_been_taken_raises(store: MemoryStore, error: Exception) -> None:
    with in_memory(transport=Faulty(error), store=store), pytest.raises(type(error)):
        defer(note, _small_task=True)
    assert store.records == {}


@pytest.mark.parametrize(
    "error", [QueueNotFoundError(), TransportUnavailableError(), AmbiguousSendError(), ValueError()]
)
def test_nothing_raises_after_a_commit_and_nothing_is_lost(store: MemoryStore, error: Exception) -> None:
    with in_memory(transport=Faulty(error), store=store), store.transaction():
        handle = defer(note)
    assert not handle.was_enqueued
    assert store.records[handle.record_id or ""].state is State.PENDING


class Failing(MemoryStore):
    """Fails in what follows a send."""

    def mark(self, record_id: str, **changes: Any) -> bool:
        raise OSError("the database has gone")

    def delete(self, record_ids: Any, **lease: Any) -> int:
        raise OSError("the database has gone")


@pytest.mark.parametrize("error", [TransportUnavailableError("down"), AmbiguousSendError("no answer")])
@pytest.mark.parametrize("many", [False, True])
def test_a_store_that_fails_after_the_send_leaves_the_task_to_the_sweep(error: Exception, many: bool) -> None:
    store = Failing()
    with in_memory(store=store, transport=Faulty(error, error)):
        handle = defer_many(note, [(1,)])[0] if many else defer(note, 1)
        with store.transaction():
            later = defer_many(note, [(1,)])[0] if many else defer(note, 2)
    assert [handle.status, later.status] == [Status.WAITS_FOR_SWEEP] * 2
    assert {record.state for record in store.records.values()} == {State.PENDING} and len(store.records) == 2


def test_what_the_queue_refuses_is_told_though_the_store_fails_too() -> None:
    with in_memory(store=Failing(), transport=Faulty(QueueNotFoundError("no queue"))):
        with pytest.raises(QueueNotFoundError) as caught:
            defer(note, 1)
        assert "the sweep" in "".join(caught.value.__notes__)


def test_a_name_that_is_taken_raises_outside_a_transaction(queue: MemoryTransport, store: MemoryStore) -> None:
    first = defer(note, _name="nightly")
    with pytest.raises(TaskAlreadyExistsError):
        defer(note, _name="nightly")
    assert (first.name, len(queue.queued())) == ("nightly", 1)
    assert len(store.records) <= 1


def test_a_name_that_is_taken_counts_as_sent_after_a_commit(queue: MemoryTransport, store: MemoryStore) -> None:
    defer(note, _name="nightly")
    with store.transaction():
        handle = defer(note, _name="nightly")
    assert handle.was_enqueued and len(queue.queued()) == 1


def test_a_task_that_the_service_finds_too_large_is_sent_as_a_claim(store: MemoryStore) -> None:
    transport = Faulty(TaskSizeRefusedError("Task size too large"))
    calls.clear()
    with in_memory(transport=transport, store=store):
        handle = defer(note, "data")
        assert handle.was_enqueued and transport.sends == 2
        body = transport.queued()[0].message.body
        assert decode(unwrap(body)).claim_check is not None and handle.payload == body
        defer(note, "other")  # carries the deletes of what was sent inline, and this was not
        drain()
    assert calls == [(("data",), {}), (("other",), {})] and len(store.records) == 1


def test_a_small_task_that_the_service_finds_too_large_raises(store: MemoryStore) -> None:
    with in_memory(transport=Faulty(TaskSizeRefusedError()), store=store):
        with pytest.raises(TaskTooLargeError, match="_small_task") as caught:
            defer(note, _small_task=True)
        assert caught.value.size > 0 and store.records == {}


def test_also_a_task_that_was_to_leave_no_record_becomes_a_claim_there(store: MemoryStore) -> None:
    transport = Faulty(TaskSizeRefusedError("Task size too large"))
    calls.clear()
    with in_memory(transport=transport, store=store, store_policy="when-large"):
        handle = defer(note, "data")
        assert handle.record_id in store.records and handle.size == len(transport.queued()[0].message.body)
        drain()
    assert calls == [(("data",), {})] and store.records == {}
