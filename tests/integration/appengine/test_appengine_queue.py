"""Our transport and store on Google's stubs of the bundled services: sizes, transactions, errors, limits."""

from __future__ import annotations

import time
from typing import Any
from unittest import mock

import pytest
import services
from integration.appengine.deferrable import calls, note
from integration.appengine.differences import noise

from defer_core import (
    ConfigError,
    NotInTransactionError,
    TaskAlreadyExistsError,
    TaskTooLargeError,
    configure,
    defer,
    defer_many,
)
from defer_core.config import configured, current
from defer_core.errors import QueueNotFoundError, TransportRefusedError, TransportUnavailableError
from defer_core.record import State
from defer_core.send.handle import Status
from defer_core.testing import MemoryTransport
from defer_core.upkeep.sweep import sweep
from defer_gae_handler import Request, handle

taskqueue, ndb, db = (
    services.library("google.appengine.api.taskqueue"),
    services.library("google.appengine.ext.ndb"),
    services.library("google.appengine.ext.db"),
)

BIG = noise(300_000)


def stored() -> list[State]:
    store = current().the_store
    assert store is not None
    return [record.state for state in State for record in store.list(state)]


def tasks(queue: Any) -> list[Any]:
    return list(queue.get_filtered_tasks())


def deliver(task: Any) -> int:
    """Post one task; the answer."""
    headers = {"X-AppEngine-QueueName": "default", "X-AppEngine-TaskName": task.name}
    request = Request(method="POST", path=task.url, headers=headers, remote_addr="0.1.0.2", read=lambda _: task.payload)
    return handle(request).status


def run(queue: Any) -> list[int]:
    """Deliver everything that is queued; the answers."""
    answers = []
    for task in tasks(queue):
        answers.append(deliver(task))
        queue.DeleteTask("default", task.name)
    return answers


class Order(ndb.Model):  # type: ignore[misc, name-defined]
    """Something of the caller's."""

    paid = ndb.BooleanProperty()


@pytest.mark.parametrize("payload", ["small", BIG, noise(3_000_000)], ids=len)
def test_a_task_runs_whatever_its_size(queue: Any, payload: str) -> None:
    handle_ = defer(note, payload)
    assert handle_.was_enqueued
    assert len(tasks(queue)) == len(stored()) == 1
    assert run(queue) == [200]
    assert calls == [((payload,), {})]
    assert stored() == ([State.PENDING] if payload == "small" else [])  # an inline one's record goes with a later put


@pytest.mark.parametrize("payload", ["small", BIG, noise(3_000_000)], ids=len)
@pytest.mark.parametrize("library", ["ndb", "db"])
def test_in_a_transaction_it_runs_if_that_commits(queue: Any, payload: str, library: str) -> None:
    def work() -> None:
        Order(id=1, paid=True).put() if library == "ndb" else None
        sent = defer(note, payload)
        assert not sent.was_enqueued
        assert tasks(queue) == []

    if library == "ndb":
        ndb.transaction(work, xg=True)
    else:
        db.run_in_transaction_options(db.create_transaction_options(xg=True), work)
    assert stored() == ([] if payload == "small" else [State.SENT])
    assert run(queue) == [200]
    assert calls == [((payload,), {})]
    assert stored() == []


@pytest.mark.parametrize("payload", ["small", BIG, noise(3_000_000)], ids=len)
@pytest.mark.parametrize("library", ["ndb", "db"])
def test_a_rollback_leaves_no_entity_and_no_task(queue: Any, payload: str, library: str) -> None:
    def work() -> None:
        defer(note, payload)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        if library == "ndb":
            ndb.transaction(work, xg=True)
        else:
            db.run_in_transaction_options(db.create_transaction_options(xg=True), work)
    assert (tasks(queue), stored()) == ([], [])


def test_of_many_that_could_not_all_be_written_none_is_left(queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from google.appengine.api import datastore, datastore_errors

    original, written = datastore.Put, []

    def put(entities: Any, **options: Any) -> Any:
        written.append(entities)
        if len(written) == 2:
            raise datastore_errors.Timeout("full")
        return original(entities, **options)

    monkeypatch.setattr(datastore, "Put", put)
    with pytest.raises(datastore_errors.Timeout):
        defer_many(note, [(1,), (noise(1_500_000),), (2,)])
    assert len(written) == 2 and (tasks(queue), stored()) == ([], [])


def test_the_sweep_does_not_send_a_large_transactional_task_twice(queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ndb.transaction(lambda: defer(note, BIG), xg=True)
    later = time.time() + 10_000
    monkeypatch.setattr("defer_core.clock.now", lambda: later)
    sweep()
    assert len(tasks(queue)) == 1


def test_in_a_single_group_transaction_a_large_task_says_what_it_needs(queue: Any) -> None:
    def work() -> None:
        Order(id=1, paid=True).put()
        defer(note, BIG)

    with pytest.raises(Exception, match="xg=True"):
        ndb.transaction(work, xg=False)
    assert (tasks(queue), stored()) == ([], [])


def test_transactional_says_what_it_means(queue: Any) -> None:
    with pytest.raises(NotInTransactionError):
        defer(note, _transactional=True)

    def work() -> None:
        defer(note, 1, _transactional=False)
        defer(note, BIG, _transactional=False)
        defer(note, 2, _transactional=True)
        assert len(tasks(queue)) == 2
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ndb.transaction(work, xg=True)
    assert run(queue) == [200, 200]
    assert sorted(len(args[0]) if isinstance(args[0], str) else args[0] for args, _ in calls) == [1, 300_000]


def test_a_transaction_has_the_sdks_rules(queue: Any) -> None:
    with pytest.raises(taskqueue.InvalidTaskNameError):
        ndb.transaction(lambda: defer(note, _name="mine"))
    assert tasks(queue) == []


def test_names_are_taken(queue: Any) -> None:
    assert defer(note, _name="mine").name == "mine"
    with pytest.raises(TaskAlreadyExistsError):
        defer(note, _name="mine")
    assert len(tasks(queue)) == 1


def test_a_missing_queue_is_named_and_nothing_is_left(queue: Any) -> None:
    with pytest.raises(QueueNotFoundError, match=r"nowhere.*queue\.yaml"):
        defer(note, _queue="nowhere")
    assert stored() == []


def test_a_small_task_touches_no_store(queue: Any) -> None:
    defer(note, _small_task=True)
    with pytest.raises(TaskTooLargeError):
        defer(note, BIG, _small_task=True)
    assert (len(tasks(queue)), stored()) == (1, [])


@pytest.mark.parametrize("transactional", [True, False])
def test_at_the_services_own_limit_a_task_becomes_a_claim(queue: Any, transactional: bool) -> None:
    """The SDK counts headers too, so a body that fits by ours may not by its own."""
    headers = {"X-Long": "y" * 2000}

    def work() -> None:
        defer(note, noise(101_400)[:101_300], _headers=headers)

    ndb.transaction(work, xg=True) if transactional else work()
    [task] = tasks(queue)
    assert len(task.payload) < 1000
    assert run(queue) == [200]
    assert len(calls[0][0][0]) == 101_300


def test_an_unavailable_queue_leaves_the_task_to_the_sweep(queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(*_: Any, **__: Any) -> None:
        raise taskqueue.TransientError("down")

    with monkeypatch.context() as patch:
        patch.setattr(taskqueue.Queue, "add_async", down)
        assert defer(note, 1).status is Status.WAITS_FOR_SWEEP
        with pytest.raises(TransportUnavailableError):
            defer(note, 2, _small_task=True)
    later = time.time() + 10_000
    monkeypatch.setattr("defer_core.clock.now", lambda: later)
    assert sweep().counts["sent"] == 1
    assert run(queue) == [200]
    assert calls == [((1,), {})]


def test_many_go_in_few_calls(queue: Any, added: list[Any]) -> None:
    handles = defer_many(note, [((number,), {}) for number in range(250)])
    assert len(handles) == 250 and all(each.was_enqueued for each in handles)
    assert [len(each) for each in added] == [100, 100, 50]
    assert len(tasks(queue)) == 250


def test_everything_reaches_the_queue(queue: Any, added: list[Any]) -> None:
    configure(transport="appengine", url="/tasks", sweep_interval=0.0)
    defer(
        note,
        _countdown=3600,
        _target="v1.backend",
        _headers={"X-A": "b"},
        _retry_options={"max_attempts": 4, "min_backoff": 2, "max_backoff": 60, "max_doublings": 3},
        _dispatch_deadline=120,
    )
    [task] = added
    assert task.url == "/tasks"
    assert abs(task.eta_posix - time.time() - 3600) < 60
    assert task.headers["X-A"] == "b"
    assert task.headers["Content-Type"] == "application/octet-stream"
    assert task.target == "v1.backend"
    assert task.dispatch_deadline_usec == 120_000_000
    options = task.retry_options
    assert (options.task_retry_limit, options.min_backoff_seconds, options.max_doublings) == (3, 2, 3)


def test_what_the_queue_would_not_take_is_refused_before_anything_is_written(queue: Any) -> None:
    store = current().the_store
    with mock.patch.object(store, "put") as put, pytest.raises(TransportRefusedError, match="https://x/"):
        defer(note, 1, _url="https://x/")
    put.assert_not_called()
    assert tasks(queue) == []


@pytest.mark.parametrize("given", [{}, {"_small_task": True}, {"_countdown": 60}, {"_transactional": False}])
def test_off_app_engine_it_says_what_is_missing(given: dict[str, Any]) -> None:
    with configured(transport="appengine"):
        for call in (lambda: defer(note, 1, **given), lambda: defer_many(note, [(1,), (2,)], **given)):
            with pytest.raises(ConfigError, match=r"taskqueue.*app_engine_apis: true.*wrap_wsgi_app.*testbed"):
                call()


def test_a_store_off_app_engine_says_what_is_missing() -> None:
    with configured(transport=MemoryTransport(), store="appengine"):
        store = current().the_store
        assert store is not None
        for call in (
            lambda: defer(note, 1),
            lambda: store.get("x"),
            lambda: store.list(State.PENDING),
            lambda: store.lease_due(now=0.0, limit=1, seconds=1.0),
            lambda: store.delete(["x"]),
        ):
            with pytest.raises(ConfigError, match=r"datastore_v3.*app_engine_apis: true"):
                call()


def test_without_the_stub_of_the_queue_nothing_is_stored(bed: Any) -> None:
    bed.init_taskqueue_stub(enable=False)
    for given in ({}, {"_small_task": True}):
        with pytest.raises(ConfigError, match="taskqueue"):
            defer(note, 1, **given)
    with pytest.raises(ConfigError, match="taskqueue"):
        defer(note, BIG)
    assert stored() == []
