"""The memory store and memory rows: a whole iteration with no database, and the lock that its completion needs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from defer_core.testing import MemoryStore, MemoryTransport, drain, in_memory
from defer_iteration import current_iteration, current_shard, defer_iteration_with_finalize
from defer_iteration.model.iteration import Iteration, IterationState
from defer_iteration.model.shard import KeyRange, Shard
from defer_iteration.rows.memory import MemoryRows
from defer_iteration.stores import routing
from defer_iteration.stores.base import Completion
from defer_iteration.stores.memory import MemoryIterationStore

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
    with in_memory(store=tasks) as transport, routing.in_use(store):
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


def test_one_that_is_created_waits_for_another_transaction_that_creates_it(memory: Any) -> None:
    _, store = memory
    first, answers = Iteration(id="i", job=b"", label="first"), []
    thread = threading.Thread(target=lambda: answers.append(store.create(Iteration(id="i", job=b"", label="second"))))
    with store.transaction():
        assert store.create(first) is None
        thread.start()
        thread.join(0.1)
    thread.join(5)
    assert answers == [first] and store.get("i") == first


def test_what_is_forgotten_waits_for_an_attempt_that_writes(memory: Any) -> None:
    _, store = memory
    two_shards(store)
    acquired = store.acquire("i", 0, 0, due=lambda requeues: 1.0)
    assert acquired and store.control("i", IterationState.CANCELLED, when=(IterationState.RUNNING,))
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(store.forget("i")))
    with store.transaction():
        assert store.checkpoint(acquired[1]) is IterationState.CANCELLED
        thread.start()
        thread.join(0.1)
    thread.join(5)
    assert answers == [True] and store.shards("i") == []


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
