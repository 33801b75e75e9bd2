"""The store with and without the caller's ndb context, and the calls that it makes."""

from __future__ import annotations

import os
from typing import Any

import pytest
import services
from testapp import tasks

from defer_core import defer
from defer_core.record import State
from defer_core.stores.ndb.store import NdbTaskStore
from defer_core.testing import MemoryTransport, drain

ndb = services.library("google.cloud.ndb")
pytestmark = pytest.mark.usefixtures("queue")


@pytest.mark.parametrize("size", [10, 300_000, 2_500_000])
def test_without_a_context_of_the_caller(size: int, store: NdbTaskStore) -> None:
    data = os.urandom(size)
    defer(tasks.record, data)
    assert not store.in_transaction()
    drain()
    assert tasks.calls == [(data,)]


def test_the_namespace_is_the_store_s_whatever_the_context_s(store: NdbTaskStore, client: Any) -> None:
    with client.context(namespace="elsewhere"):
        handle = defer(tasks.record)
        assert ndb.Key("DeferTask", handle.record_id).get() is None
    assert handle.record_id is not None and store.get(handle.record_id) is not None


def test_the_caller_s_caches_are_passed_by(store: NdbTaskStore, client: Any) -> None:
    from google.cloud.ndb import global_cache

    cache = global_cache._InProcessGlobalCache()
    with client.context(cache_policy=lambda key: True, global_cache=cache, global_cache_policy=lambda key: True):
        handle = defer(tasks.record)
        assert handle.record_id is not None
        record = store.get(handle.record_id)
        assert record is not None
        other = NdbTaskStore(project=client.project, namespace=store.alias)
        assert other.mark(record.id, lease="", state=State.DEAD)
        found = store.get(record.id)
        assert found is not None and found.state is State.DEAD
    assert not any(b"DeferTask" in key for key in cache.cache)


def test_a_default_defer_writes_in_one_call(calls: list[str], queue: MemoryTransport, store: NdbTaskStore) -> None:
    first = defer(tasks.record, 1)
    assert calls == ["commit"] and len(queue.queued()) == 1
    second = defer(tasks.record, 2)
    assert calls == ["commit"] * 2  # the delete of the first rode along
    assert first.record_id is not None and second.record_id is not None
    assert store.get(first.record_id) is None and store.get(second.record_id) is not None


def test_a_large_defer_writes_in_one_call(calls: list[str]) -> None:
    defer(tasks.record, os.urandom(300_000))
    assert calls == ["commit"]


def test_a_small_task_makes_no_call_of_the_store(calls: list[str], queue: MemoryTransport) -> None:
    defer(tasks.record, 1, _small_task=True)
    assert calls == [] and len(queue.queued()) == 1


def test_a_transactional_defer_makes_no_call_beside_the_transaction_s(calls: list[str], client: Any) -> None:
    with client.context():
        ndb.transaction(lambda: defer(tasks.record, 1))
    assert calls == ["begin_transaction", "commit"]


def test_a_payload_over_one_entity_is_split_in_one_group(store: NdbTaskStore, client: Any) -> None:
    handle = defer(tasks.record, os.urandom(2_500_000))
    with client.context():
        root = ndb.Key("DeferTask", handle.record_id, namespace=store.alias)
        pieces = ndb.Query(ancestor=root, kind="DeferPayload", namespace=store.alias).fetch(keys_only=True)
        assert [key.id() for key in pieces] == [1, 2, 3]
    drain()
    with client.context():
        left = ndb.Query(ancestor=root, kind="DeferPayload", namespace=store.alias).fetch(keys_only=True)
    assert left == [] and len(tasks.calls) == 1
