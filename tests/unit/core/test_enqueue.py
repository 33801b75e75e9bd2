"""The send path: what is written, what is sent, and what is left when something fails."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from defer_core import adefer, config, defer, defer_many
from defer_core.envelope import decode
from defer_core.errors import (
    AmbiguousSendError,
    ConfigError,
    NotInTransactionError,
    PayloadTooLargeError,
    QueueNotFoundError,
    TaskAlreadyExistsError,
    TaskSizeRefusedError,
    TaskTooLargeError,
    TransportUnavailableError,
    UnserializableError,
)
from defer_core.frame import unwrap
from defer_core.handle import Status
from defer_core.record import State
from defer_core.testing import MemoryStore, MemoryTransport, drain, in_memory
from defer_core.transports.base import Message

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


def test_a_task_is_stored_sent_and_run(queue: MemoryTransport, store: MemoryStore) -> None:
    handle = defer(note, 1, key="v", _queue="mail", _countdown=60)
    [task] = queue.queued()
    assert handle.status is Status.SENT and handle.was_enqueued
    assert (handle.queue_name, handle.name, handle.record_id) == ("mail", task.name, handle.name)
    assert handle.size == len(task.message.body) and handle.url == "/_ah/queue/deferred"
    assert handle.eta_posix == task.due
    assert handle.eta is not None and handle.eta.timestamp() == pytest.approx(task.due)
    assert list(store.records) == [handle.record_id]
    drain()
    assert calls == [((1,), {"key": "v"})]


def test_the_record_of_a_sent_task_goes_with_a_later_put(queue: MemoryTransport, store: MemoryStore) -> None:
    first = defer(note)
    second = defer(note)
    assert list(store.records) == [second.record_id] != [first.record_id]


def test_a_carried_delete_stays_listed_until_its_transaction_commits(
    queue: MemoryTransport, store: MemoryStore
) -> None:
    first = defer(note)
    with pytest.raises(RuntimeError), store.transaction():
        defer(note)
        raise RuntimeError
    assert list(store.records) == [first.record_id]
    defer(note)
    assert first.record_id not in store.records


def test_a_small_task_leaves_no_record_and_is_named_by_the_queue(queue: MemoryTransport, store: MemoryStore) -> None:
    handle = defer(note, _small_task=True)
    assert store.records == {} and handle.record_id is None
    assert handle.was_enqueued and handle.name == queue.queued()[0].name


def test_a_small_task_over_the_limit_leaves_nothing(queue: MemoryTransport, store: MemoryStore) -> None:
    with pytest.raises(TaskTooLargeError, match="_small_task") as caught:
        defer(note, os.urandom(200_000), _small_task=True)
    assert caught.value.size > caught.value.limit == 102_400
    assert store.records == {} and queue.queued() == []


def test_a_large_task_travels_as_a_claim(queue: MemoryTransport, store: MemoryStore) -> None:
    data = os.urandom(300_000)
    handle = defer(note, data)
    assert handle.size < 1000
    claim = decode(unwrap(queue.queued()[0].message.body)).claim
    assert claim is not None and claim.key == handle.record_id and claim.size > 300_000
    drain()
    assert calls == [((data,), {})] and store.records == {}


def test_a_compressible_task_is_sent_inline(queue: MemoryTransport, store: MemoryStore) -> None:
    handle = defer(note, "x" * 300_000)
    assert handle.size < 10_000
    assert store.records[handle.record_id or ""].payload is None
    drain()
    assert calls == [(("x" * 300_000,), {})]


def test_a_task_larger_than_a_store_takes_is_refused(queue: MemoryTransport, store: MemoryStore) -> None:
    for data in (os.urandom(store.max_payload), "compressible" * (store.max_payload // 12 + 1)):
        with pytest.raises(PayloadTooLargeError, match="defer its key"):
            defer(note, data)
    assert store.records == {} and queue.queued() == []


def test_a_bad_argument_leaves_nothing(queue: MemoryTransport, store: MemoryStore) -> None:
    with config.configured(transport=queue, store=store, allow_pickle=False), pytest.raises(UnserializableError):
        defer(note, object())
    assert store.records == {} and queue.queued() == []


@pytest.mark.parametrize("data", [b"small", os.urandom(300_000)], ids=["inline", "claimed"])
def test_promise_2_a_task_of_a_rolled_back_transaction_never_runs(
    queue: MemoryTransport, store: MemoryStore, data: bytes
) -> None:
    with pytest.raises(RuntimeError), store.transaction():
        handle = defer(note, data)
        assert handle.status is Status.WAITS_FOR_COMMIT and not handle.was_enqueued
        raise RuntimeError
    assert store.records == {} and queue.queued() == []
    assert not handle.was_enqueued


@pytest.mark.parametrize("data", [b"small", os.urandom(300_000)], ids=["inline", "claimed"])
@pytest.mark.parametrize("small", [False, True])
def test_a_task_in_a_transaction_is_stored_with_it_and_sent_after_it(
    queue: MemoryTransport, store: MemoryStore, data: bytes, small: bool
) -> None:
    if small and len(data) > 1000:
        pytest.raises(TaskTooLargeError, defer, note, data, _small_task=True)
        return
    with store.transaction():
        handle = defer(note, data, _small_task=small)
        assert queue.queued() == [] and store.records == {}
    assert handle.was_enqueued and list(store.records) == [handle.record_id]
    drain()
    assert calls == [((data,), {})]


def test_a_task_independent_of_its_transaction_is_sent_at_once(queue: MemoryTransport, store: MemoryStore) -> None:
    with pytest.raises(RuntimeError), store.transaction():
        handle = defer(note, _transactional=False)
        assert handle.was_enqueued and handle.record_id is None
        with pytest.raises(PayloadTooLargeError, match="outside the transaction"):
            defer(note, os.urandom(300_000), _transactional=False)
        raise RuntimeError
    assert len(queue.queued()) == 1


def test_transactional_outside_a_transaction_is_an_error(queue: MemoryTransport) -> None:
    with pytest.raises(NotInTransactionError):
        defer(note, _transactional=True)


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
        assert decode(unwrap(body)).claim is not None and handle.payload == body
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


def test_what_people_see_of_a_task_leaves_its_content_out(store: MemoryStore) -> None:
    with in_memory(store=store):
        handle = defer(note, "a secret")
    assert "a secret" not in repr(handle) and "a secret" not in repr(store.records)


def test_the_policy_when_large_stores_only_what_it_must(store: MemoryStore) -> None:
    with in_memory(store=store, store_policy="when-large") as queue:
        assert defer(note).record_id is None
        assert store.records == {}
        assert defer(note, os.urandom(300_000)).record_id in store.records
        with store.transaction():
            transactional = defer(note)
        assert transactional.record_id in store.records
        assert len(queue.queued()) == 3


def test_without_a_store_inline_tasks_are_sent_and_larger_ones_refused() -> None:
    transport = MemoryTransport()
    with config.configured(transport=transport):
        assert defer(note).record_id is None
        with pytest.raises(PayloadTooLargeError, match="store"):
            defer(note, os.urandom(300_000))


def test_an_unconfigured_defer_names_the_three_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_source", None)
    monkeypatch.setattr(config, "_explicit", None)
    monkeypatch.setattr(config, "_cached", None)
    for name in [name for name in os.environ if name.startswith("DEFER_TRANSPORT")]:
        monkeypatch.delenv(name)
    with pytest.raises(ConfigError, match=r"(?s)DEFER_TRANSPORT=cloud.*appengine.*local"):
        defer(note)


@pytest.mark.parametrize("with_asgiref", [True, False])
def test_adefer(queue: MemoryTransport, monkeypatch: pytest.MonkeyPatch, with_asgiref: bool) -> None:
    if with_asgiref:
        import asgiref.sync  # noqa: F401 (a process of Django has it)
    else:
        monkeypatch.delitem(sys.modules, "asgiref.sync", raising=False)
    handle = asyncio.run(adefer(note, 1, _queue="mail"))
    assert handle.queue_name == "mail" and len(queue.queued()) == 1


def test_the_delete_of_a_sent_record_rides_once_and_again_where_its_transaction_rolled_back(
    queue: MemoryTransport, store: MemoryStore
) -> None:
    first = defer(note, 1).record_id
    with pytest.raises(RuntimeError), store.transaction():
        defer(note, 2)
        raise RuntimeError
    assert store.forgotten.peek() == (first,) and list(store.records) == [first]
    second = defer(note, 3).record_id
    assert store.forgotten.peek() == (second,) and list(store.records) == [second]


def test_an_alias_that_no_store_has_is_refused(queue: MemoryTransport) -> None:
    with pytest.raises(ConfigError, match="reports"):
        defer(note, _using="reports")
