"""With NDB, a task deferred in a transaction runs if and only if that commits."""

from __future__ import annotations

import os
from typing import Any

import pytest
import services
from testapp import tasks

from defer_core import defer, defer_many
from defer_core.config import configured
from defer_core.errors import (
    NotInTransactionError,
    PayloadTooLargeError,
    TaskSizeRefusedError,
    TransportUnavailableError,
)
from defer_core.record import State
from defer_core.send.handle import Status
from defer_core.stores.ndb.store import NdbTaskStore
from defer_core.testing import MemoryTransport, drain
from defer_core.transports.base import Message
from defer_core.upkeep.sweep import sweep

ndb = services.library("google.cloud.ndb")
pytestmark = pytest.mark.usefixtures("context", "queue")
SIZES = [10, 300_000, 2_500_000]


class Order(ndb.Model):  # type: ignore[misc]
    """The caller's own data."""

    number = ndb.IntegerProperty()


class Down(MemoryTransport):
    """A queue that raises the given errors first."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self.errors, self.sends = list(errors), 0

    def send(self, message: Message) -> str:
        self.sends += 1
        if self.errors:
            raise self.errors.pop(0)
        return super().send(message)


@pytest.mark.parametrize("size", SIZES)
def test_a_committed_transaction_leaves_its_task(size: int, queue: MemoryTransport, store: NdbTaskStore) -> None:
    data = os.urandom(size)

    def body() -> Any:
        Order(id=1, number=1).put()
        handle = defer(tasks.record, data)
        assert handle.status is Status.WAITS_FOR_COMMIT and queue.queued() == []
        return handle

    handle = ndb.transaction(body)
    assert handle.status is Status.SENT and Order.get_by_id(1).number == 1
    drain()
    assert tasks.calls == [(data,)]
    assert (store.get(handle.record_id) is None) == (size > 100_000)  # a run deletes what it claimed


@pytest.mark.parametrize("size", SIZES)
def test_a_rolled_back_transaction_leaves_nothing(size: int, queue: MemoryTransport, store: NdbTaskStore) -> None:
    handles: list[Any] = []

    def body() -> None:
        handles.append(defer(tasks.record, os.urandom(size)))
        raise ValueError

    with pytest.raises(ValueError):
        ndb.transaction(body)
    assert queue.queued() == [] and store.get(handles[0].record_id) is None
    assert handles[0].status is Status.WAITS_FOR_COMMIT
    sweep()
    assert queue.queued() == []


def test_a_body_that_is_repeated_leaves_as_many_tasks_as_commits(queue: MemoryTransport, store: NdbTaskStore) -> None:
    from google.api_core.exceptions import Aborted

    tries: list[int] = []

    def body() -> None:
        tries.append(1)
        defer(tasks.record, len(tries))
        if len(tries) < 3:
            raise Aborted("contention")

    ndb.transaction(body)
    assert store.count(State.PENDING) == 1
    drain()
    assert tasks.calls == [(3,)]


def test_a_joined_transaction_belongs_to_the_outer_one() -> None:
    @ndb.transactional()  # type: ignore[untyped-decorator]
    def inner() -> None:
        defer(tasks.record, "inner")
        raise ValueError

    def outer() -> None:
        defer(tasks.record, "outer")
        with pytest.raises(ValueError):
            inner()

    ndb.transaction(outer)
    drain()
    # ndb commits what a joined body has written, though it failed: data and tasks alike
    assert sorted(tasks.calls) == [("inner",), ("outer",)]


def test_an_outer_rollback_takes_the_tasks_of_the_joined_one_along(queue: MemoryTransport) -> None:
    def outer() -> None:
        ndb.transaction(lambda: defer(tasks.record, "inner"), join=True)
        raise ValueError

    with pytest.raises(ValueError):
        ndb.transaction(outer)
    sweep()
    assert queue.queued() == []


def test_a_transient_error_of_the_queue_commits_nothing_twice(store: NdbTaskStore) -> None:
    """ndb would repeat the whole transaction."""
    from google.api_core.exceptions import ServiceUnavailable

    down = Down(ServiceUnavailable("try again"))
    tries, after = [], []

    def body() -> None:
        tries.append(1)
        defer(tasks.record, "late")
        defer(tasks.record, "now")
        ndb.get_context().call_on_commit(lambda: after.append(1))

    with configured(transport=down, store=store, sweep_grace=0.0):
        ndb.transaction(body)
        assert (len(tries), after, down.sends) == (1, [1], 2)
        sweep()
        drain(down)
    assert sorted(tasks.calls) == [("late",), ("now",)]


def test_a_hook_that_raises_commits_nothing_twice_and_stops_no_other(store: NdbTaskStore) -> None:
    from google.api_core.exceptions import ServiceUnavailable

    tries, after = [], []

    def body() -> None:
        tries.append(1)
        store.on_commit(fail)
        store.on_commit(lambda: after.append(1))

    def fail() -> None:
        raise ServiceUnavailable("try again")

    ndb.transaction(body)
    assert (len(tries), after) == (1, [1])


def test_hooks_of_the_commit_are_not_in_the_transaction(store: NdbTaskStore) -> None:
    seen: list[bool] = []
    with store.transaction():
        store.on_commit(lambda: seen.append(store.in_transaction()))
    assert seen == [False]


def test_a_queue_that_is_down_leaves_the_task_to_the_sweep(store: NdbTaskStore) -> None:
    down = Down(TransportUnavailableError())
    with configured(transport=down, store=store, sweep_grace=0.0):
        handle = ndb.transaction(lambda: defer(tasks.record, "late"))
        assert handle.status is Status.WAITS_FOR_SWEEP and down.queued() == []
        record = store.get(handle.record_id)
        assert record is not None
        store.mark(record.id, lease=record.lease, due=0.0)
        assert sweep().counts["sent"] == 1
        drain(down)
    assert tasks.calls == [("late",)] and store.count(State.PENDING) == 0


def test_false_in_a_transaction_sends_now_with_its_record_beside_it(
    queue: MemoryTransport, store: NdbTaskStore
) -> None:
    def body() -> None:
        handle = defer(tasks.record, os.urandom(300_000), _transactional=False)
        assert handle.status is Status.SENT and len(queue.queued()) == 1
        raise ValueError

    with pytest.raises(ValueError):
        ndb.transaction(body)
    drain()
    assert len(tasks.calls) == 1


def test_false_in_a_transaction_claims_beside_it_what_the_service_finds_too_large(store: NdbTaskStore) -> None:
    """Also where the policy would have left no record."""
    refused = TaskSizeRefusedError("Task size too large")
    small = Down(refused)

    def body() -> None:
        one = defer(tasks.record, 1, _transactional=False)
        small.errors = [refused]
        two = defer_many(tasks.record, [(2,)], _transactional=False)[0]
        assert (one.status, two.status) == (Status.SENT, Status.SENT)
        raise ValueError

    with configured(transport=small, store=store, store_policy="when-large"):
        with pytest.raises(ValueError):
            ndb.transaction(body)
        assert store.count(State.PENDING) == 2
        drain(small)
    assert tasks.calls == [(1,), (2,)] and store.count(State.PENDING) == 0


def test_true_outside_a_transaction_is_refused(queue: MemoryTransport, store: NdbTaskStore) -> None:
    with pytest.raises(NotInTransactionError):
        defer(tasks.record, _transactional=True)
    assert queue.queued() == [] and store.count(State.PENDING) == 0


def test_true_in_a_transaction_is_as_none() -> None:
    ndb.transaction(lambda: defer(tasks.record, 1, _transactional=True))
    drain()
    assert tasks.calls == [(1,)]


def test_a_small_task_in_a_transaction_leaves_its_record_all_the_same(store: NdbTaskStore) -> None:
    handle = ndb.transaction(lambda: defer(tasks.record, 1, _small_task=True))
    assert store.get(handle.record_id) is not None


def test_many_tasks_in_one_transaction(queue: MemoryTransport, store: NdbTaskStore) -> None:
    ndb.transaction(lambda: defer_many(tasks.record, [(n,) for n in range(30)]))
    drain()
    assert sorted(tasks.calls) == [(n,) for n in range(30)]


def test_more_than_one_commit_takes_is_refused_in_a_transaction(queue: MemoryTransport) -> None:
    with pytest.raises(PayloadTooLargeError, match="501 entities"):
        ndb.transaction(lambda: defer_many(tasks.record, [(n,) for n in range(501)]))
    assert queue.queued() == []


def test_a_write_that_fails_half_way_is_taken_back(
    store: NdbTaskStore, queue: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    from defer_core.stores.ndb import entities

    original, made = entities.commit, []

    def failing(written: list[Any], deleted: list[Any]) -> None:
        made.append(len(written))
        if len(made) == 2:
            raise OSError("down")
        original(written, deleted)

    monkeypatch.setattr(entities, "commit", failing)
    with pytest.raises(OSError):
        defer_many(tasks.record, [(n,) for n in range(520)])
    assert made[:2] == [500, 20] and queue.queued() == []
    assert store.count(State.PENDING) == 0
