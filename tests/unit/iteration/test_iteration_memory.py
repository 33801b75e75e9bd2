"""The memory store and memory rows: a whole iteration with no database, and the lock that its completion needs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from defer_core.testing import MemoryStore, drain, in_memory
from defer_core.transports.memory import MemoryTransport
from defer_iteration import current_iteration, current_shard, defer_iteration_with_finalize, stores
from defer_iteration.base import Completion
from defer_iteration.iteration import Iteration, IterationState
from defer_iteration.shard import KeyRange, Shard
from defer_iteration.store_memory import MemoryIterationStore, MemoryRows

VALUES = {index: f"value {index}" for index in range(25)}
passed: list[str] = []
finalized: list[dict[str, int]] = []


def memory_rows() -> MemoryRows:
    return MemoryRows(VALUES, page=4)


def note(value: str) -> None:
    passed.append(value)
    shard = current_shard()
    assert shard is not None
    shard.count("passed")


def end() -> None:
    iteration = current_iteration()
    assert iteration is not None
    finalized.append(dict(iteration.counters))


@pytest.fixture
def memory() -> Iterator[tuple[MemoryTransport, MemoryIterationStore]]:
    passed.clear()
    finalized.clear()
    tasks = MemoryStore()
    store = MemoryIterationStore(tasks)
    with in_memory(store=tasks) as transport, stores.in_use(store):
        yield transport, store


def test_an_iteration_runs_with_no_database(memory: Any) -> None:
    transport, store = memory
    defer_iteration_with_finalize(memory_rows, note, end, _shards=4)
    drain(transport)
    assert sorted(passed) == sorted(VALUES.values())
    assert finalized == [{"passed": 25}]
    assert store.list() == []


def test_a_call_that_is_rolled_back_leaves_nothing(memory: Any) -> None:
    transport, store = memory
    with pytest.raises(ZeroDivisionError), store.transaction():
        defer_iteration_with_finalize(memory_rows, note, end)
        raise ZeroDivisionError
    assert store.list() == [] and transport.queued() == []


def two_shards(store: MemoryIterationStore) -> list[Shard]:
    """A running iteration of two open shards."""
    iteration = Iteration(id="i", job=b"")
    store.create(iteration)
    shards = [Shard(iteration_id="i", index=index, range=KeyRange()) for index in range(2)]
    store.plan(iteration, shards, total=2)
    return shards


def test_two_last_shards_cannot_both_see_the_other_open(memory: Any) -> None:
    _, store = memory
    first, second = two_shards(store)
    entered, answers = threading.Event(), []

    def other() -> None:
        entered.set()
        answers.append(store.complete(second, due=0.0))

    thread = threading.Thread(target=other)
    with store.transaction():
        answers.append(store.complete(first, due=0.0))
        thread.start()
        entered.wait(5)
        assert len(answers) == 1  # the other waits for the iteration's row
    thread.join(5)
    assert answers == [Completion.OPEN, Completion.LAST]
    assert store.get("i").state is IterationState.FINALIZING
