"""The send path: what is written, what is sent, and what is left when something fails."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from defer_core import adefer, config, defer
from defer_core.config import active
from defer_core.errors import (
    ConfigError,
    TaskTooLargeError,
    UnserializableError,
)
from defer_core.send.handle import Status
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


def test_a_bad_argument_leaves_nothing(queue: MemoryTransport, store: MemoryStore) -> None:
    with config.configured(transport=queue, store=store, allow_pickle=False), pytest.raises(UnserializableError):
        defer(note, object())
    assert store.records == {} and queue.queued() == []


@pytest.mark.defer_real
def test_an_unconfigured_defer_names_the_three_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(active, "_source", None)
    monkeypatch.setattr(active, "_explicit", None)
    monkeypatch.setattr(active, "_cached", None)
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
