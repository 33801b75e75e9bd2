"""`defer_many`: all or nothing before the store, and the queue's failures by index after it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from defer_core import BulkSendError, Call, Status, defer_many
from defer_core.errors import (
    CallableError,
    OptionError,
    QueueNotFoundError,
    TaskAlreadyExistsError,
    TaskSizeRefusedError,
    TaskTooLargeError,
    TransportUnavailableError,
    UnserializableError,
)
from defer_core.testing import MemoryStore, MemoryTransport, drain, in_memory
from defer_core.transports.base import Message

calls: list[Any] = []


def note(*args: Any, **kwargs: Any) -> None:
    calls.append((args, kwargs))


class Counting(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.puts = 0

    def put(self, *args: Any, **kwargs: Any) -> None:
        self.puts += 1
        super().put(*args, **kwargs)


class Failing(MemoryTransport):
    """Refuses the tasks at some places with some errors, once."""

    def __init__(self, errors: dict[int, Exception]) -> None:
        super().__init__()
        self.errors, self.count = errors, 0

    def send(self, message: Message) -> str:
        self.count += 1
        if error := self.errors.pop(self.count - 1, None):
            raise error
        return super().send(message)


@pytest.fixture
def store() -> Counting:
    return Counting()


@pytest.fixture
def queue(store: Counting) -> Iterator[MemoryTransport]:
    calls.clear()
    with in_memory(store=store) as transport:
        yield transport


def test_many_calls_are_one_write(queue: MemoryTransport, store: Counting) -> None:
    handles = defer_many(note, [(1,), [2], {"key": 3}, Call((4,), {"key": 5})], _queue="mail")
    assert store.puts == 1 and len(store.records) == 4
    assert all(handle.was_enqueued and handle.queue_name == "mail" for handle in handles)
    drain()
    assert calls == [((1,), {}), ((2,), {}), ((), {"key": 3}), ((4,), {"key": 5})]


def test_one_bad_call_refuses_all(store: Counting) -> None:
    with in_memory(store=store, allow_pickle=False) as queue:
        with pytest.raises(UnserializableError) as caught:
            defer_many(note, [(1,), (object(),), (3,)])
        assert "call 1" in "".join(caught.value.__notes__)
        assert (store.puts, queue.queued()) == (0, [])


@pytest.mark.parametrize("bad", ["text", 5, None])
def test_a_call_is_a_tuple_a_mapping_or_a_call(queue: MemoryTransport, store: Counting, bad: Any) -> None:
    with pytest.raises(OptionError, match="Call 1"):
        defer_many(note, [(1,), bad])
    assert store.puts == 0


def plain(key: Any = None) -> None:
    """Takes no other keyword."""


@pytest.mark.parametrize(
    ("func", "bad", "said"),
    [
        (note, {1: 2}, "1 is no keyword"),
        (note, Call((), {"_countdown": 5}), "'_countdown' is an option"),
        (plain, {"_countdown": 5}, "'_countdown' is an option"),
        (plain, {"_own": 5}, "argument '_own'"),
    ],
)
def test_keywords_that_a_call_cannot_have_refuse_all(
    queue: MemoryTransport, store: Counting, func: Any, bad: Any, said: str
) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        defer_many(func, [{"key": 1}, bad])
    assert "call 1" in "".join(caught.value.__notes__)
    assert (store.puts, queue.queued()) == (0, [])


def test_options_are_checked(queue: MemoryTransport) -> None:
    with pytest.raises(OptionError, match="extra"):
        defer_many(note, [(1,)], extra=1)
    with pytest.raises(OptionError, match="_name"):
        defer_many(note, [(1,)], _name="n")
    with pytest.raises(CallableError):
        defer_many(lambda: None, [()])
    assert queue.queued() == []


def test_the_queues_refusals_come_by_index(store: Counting) -> None:
    with in_memory(transport=Failing({1: QueueNotFoundError("no queue")}), store=store):
        with pytest.raises(BulkSendError, match="no queue") as caught:
            defer_many(note, [(1,), (2,), (3,)])
    assert list(caught.value.failures) == [1]
    assert len(caught.value.handles) == 2 == len(store.records)


def test_an_unavailable_queue_leaves_those_tasks_to_the_sweep(store: Counting) -> None:
    with in_memory(transport=Failing({1: TransportUnavailableError()}), store=store):
        handles = defer_many(note, [(1,), (2,)])
    assert [handle.status for handle in handles] == [Status.SENT, Status.WAITS_FOR_SWEEP]
    assert len(store.records) == 2


def test_a_name_of_ours_that_is_taken_is_that_of_a_first_try_which_arrived(store: Counting) -> None:
    with in_memory(transport=Failing({1: TaskAlreadyExistsError()}), store=store):
        handles = defer_many(note, [(0,), (1,)])
    assert [handle.status for handle in handles] == [Status.SENT, Status.SENT]


@pytest.mark.parametrize("policy", ["always", "when-large"])
def test_a_task_that_the_service_finds_too_large_is_claimed(store: Counting, policy: str) -> None:
    calls.clear()
    with in_memory(transport=Failing({0: TaskSizeRefusedError()}), store=store, store_policy=policy):
        handles = defer_many(note, [(1,), (2,)])
        assert [handle.status for handle in handles] == [Status.SENT] * 2
        assert handles[0].name == handles[0].record_id and store.records[handles[0].name].is_claim_check
        drain()
    assert sorted(calls) == [((1,), {}), ((2,), {})]


def test_a_small_task_that_the_service_finds_too_large_is_a_failure(store: Counting) -> None:
    with in_memory(transport=Failing({0: TaskSizeRefusedError()}), store=store):
        with pytest.raises(BulkSendError) as caught:
            defer_many(note, [(1,), (2,)], _small_task=True)
        assert caught.value.failures.keys() == {0} and store.records == {}
        failure = caught.value.failures[0]
        assert isinstance(failure, TaskTooLargeError) and failure.size > 50 and "_small_task" in str(failure)


@pytest.mark.parametrize("commits", [True, False])
def test_in_a_transaction_all_follow_the_commit(queue: MemoryTransport, store: Counting, commits: bool) -> None:
    data = os.urandom(300_000)
    try:
        with store.transaction():
            handles = defer_many(note, [(1,), (data,)])
            assert queue.queued() == []
            if not commits:
                raise RuntimeError
    except RuntimeError:
        pass
    assert [handle.was_enqueued for handle in handles] == [commits] * 2
    drain()
    assert calls == ([((1,), {}), ((data,), {})] if commits else [])


def test_what_fails_after_a_commit_leaves_the_rest_to_the_sweep(
    queue: MemoryTransport, store: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(record_id: str) -> None:
        raise MemoryError

    with store.transaction():
        handles = defer_many(note, [(1,), (2,), (3,)])
        monkeypatch.setattr(store.forgotten, "add", lambda _: monkeypatch.setattr(store.forgotten, "add", full))
    assert [handle.status for handle in handles] == [Status.SENT, Status.SENT, Status.WAITS_FOR_SWEEP]


def test_small_tasks_leave_no_record(queue: MemoryTransport, store: Counting) -> None:
    handles = defer_many(note, [(1,), (2,)], _small_task=True)
    assert store.puts == 0 and all(handle.name and handle.was_enqueued for handle in handles)


def test_no_calls_are_no_work(queue: MemoryTransport, store: Counting) -> None:
    assert defer_many(note, []) == [] and store.puts == 0
