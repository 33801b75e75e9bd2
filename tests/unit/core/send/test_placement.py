"""The store of a task's record, and its relation to the caller's transaction."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from defer_core import TaskOptions, config, defer
from defer_core.errors import (
    ConfigError,
    NotInTransactionError,
    PayloadTooLargeError,
    TaskTooLargeError,
)
from defer_core.send.handle import Status
from defer_core.send.placement import check_placement
from defer_core.testing import MemoryStore, MemoryTransport, drain, in_memory

calls: list[Any] = []


def note(*args: Any, **kwargs: Any) -> None:
    calls.append((args, kwargs))


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def queue(store: MemoryStore) -> Iterator[MemoryTransport]:
    calls.clear()
    with in_memory(store=store) as transport:
        yield transport


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


def test_transactional_outside_a_transaction_is_an_error() -> None:
    with in_memory(joins=()), pytest.raises(NotInTransactionError):
        defer(note, _transactional=True)


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


def test_an_alias_that_no_store_has_is_refused(queue: MemoryTransport) -> None:
    with pytest.raises(ConfigError, match="reports"):
        defer(note, _using="reports")


def test_a_placement_is_checked_without_a_task(store: MemoryStore) -> None:
    with in_memory(store=store, joins=()):
        check_placement(TaskOptions())
        with pytest.raises(NotInTransactionError):
            check_placement(TaskOptions(transactional=True))
        with store.transaction():
            check_placement(TaskOptions(transactional=True))
        with pytest.raises(ConfigError, match="no configured store has that alias"):
            check_placement(TaskOptions(using="elsewhere"))
