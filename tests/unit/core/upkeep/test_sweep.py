"""The sweep: what a crash left is sent, what was sent is dropped, what is doubtful is held."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest

from defer_core import Delivery, PermanentTaskFailure, clock, defer, execute
from defer_core.config import configured, current
from defer_core.errors import AmbiguousSendError, QueueNotFoundError, TaskSizeRefusedError, TransportUnavailableError
from defer_core.record import State, TaskRecord, new_id
from defer_core.run.execute import Outcome
from defer_core.stores.base import ForgetList
from defer_core.testing import MemoryStore, MemoryTransport, drain, in_memory, run_one
from defer_core.transports.base import Message
from defer_core.upkeep import sweep

calls: list[Any] = []


def note(*args: Any) -> None:
    calls.append(args)


class Time:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Queue(MemoryTransport):
    """A queue that is as broken as `error` says; `takes` tells whether it takes the task nevertheless."""

    error: Exception | None = None
    takes = False

    def send(self, message: Message) -> str:
        if self.error is not None:
            if self.takes:
                super().send(message)
            raise self.error
        return super().send(message)


@pytest.fixture
def time() -> Iterator[Time]:
    calls.clear()
    source = Time()
    with clock.replaced(source):
        yield source


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def queue(store: MemoryStore, time: Time) -> Iterator[Queue]:
    transport = Queue()
    with in_memory(transport=transport, store=store):
        yield transport


def swept() -> dict[str, int]:
    return dict(sweep.sweep().counts)


def crash_between_commit_and_send(queue: Queue, store: MemoryStore, *args: Any) -> str:
    """The record is committed, and the process dies before it sends."""
    queue.error = KeyboardInterrupt()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt), store.transaction():
        handle = defer(note, *args)
    queue.error = None
    assert handle.record_id is not None
    return handle.record_id


@pytest.mark.parametrize("data", [b"", os.urandom(300_000)], ids=["inline", "claimed"])
def test_promise_1_a_task_whose_process_died_after_its_commit_is_sent(
    queue: Queue, store: MemoryStore, time: Time, data: bytes
) -> None:
    record_id = crash_between_commit_and_send(queue, store, data)
    assert swept() == {}
    time.now += 61
    assert swept() == {"sent": 1}
    assert [task.name for task in queue.queued()] == [record_id]
    drain()
    assert calls == [(data,)] and store.records == {}


def test_a_sent_inline_record_is_known_by_its_name_and_dropped(queue: Queue, store: MemoryStore, time: Time) -> None:
    defer(note)
    drain()
    store.forgotten = ForgetList()  # the process that sent it is gone
    time.now += 7 * 3600
    assert swept() == {"dropped": 1}
    assert store.records == {} and calls == [()]


def test_a_claim_record_is_never_dropped_as_sent(queue: Queue, store: MemoryStore, time: Time) -> None:
    defer(note, os.urandom(300_000))
    time.now += 61
    assert swept() == {"dropped": 1}
    [record] = store.records.values()
    assert record.state is State.SENT
    time.now += 10_000
    assert swept() == {}
    drain()
    assert len(calls) == 1 and store.records == {}


def test_an_outage_is_waited_out(queue: Queue, store: MemoryStore, time: Time) -> None:
    queue.error = TransportUnavailableError()
    defer(note)
    for _ in range(30):
        time.now += 601
        assert swept() == {"postponed": 1}
    queue.error = None
    time.now += 601
    assert swept() == {"sent": 1}
    drain()
    assert calls == [()]


def test_the_wait_grows_to_its_longest(queue: Queue, store: MemoryStore, time: Time) -> None:
    queue.error = TransportUnavailableError()
    defer(note)
    waits = []
    for _ in range(6):
        [record] = store.records.values()
        waits.append(record.due - time.now)
        time.now = record.due
        swept()
    assert waits == [60, 120, 240, 480, 600, 600]


def test_a_doubtful_task_is_sent_again_within_its_name_window_only(
    queue: Queue, store: MemoryStore, time: Time
) -> None:
    queue.error = AmbiguousSendError()
    defer(note)
    time.now += 3000
    assert swept() == {"postponed": 1}
    time.now += 601
    assert swept() == {"held": 1}
    [record] = store.records.values()
    assert (record.state, record.reason) == (State.DEAD, "held")
    assert "AmbiguousSendError" in record.last_error
    queue.error = None
    time.now += 10_000
    assert swept() == {} and queue.queued() == []


def test_a_doubtful_task_that_was_taken_is_dropped(queue: Queue, store: MemoryStore, time: Time) -> None:
    queue.error, queue.takes = AmbiguousSendError(), True
    defer(note)
    queue.error = None
    time.now += 61
    assert swept() == {"dropped": 1}
    assert len(queue.queued()) == 1 and store.records == {}


def test_the_name_window_starts_at_the_first_doubtful_try(queue: Queue, store: MemoryStore, time: Time) -> None:
    queue.error = TransportUnavailableError()
    defer(note)
    time.now += 5000
    queue.error = AmbiguousSendError()
    assert swept() == {"postponed": 1}
    time.now += 3000
    queue.error = None
    assert swept() == {"sent": 1}


def test_a_task_that_the_queue_refuses_is_exhausted(queue: Queue, store: MemoryStore, time: Time) -> None:
    with store.transaction():
        queue.error = QueueNotFoundError("no queue")
        defer(note)
    for _ in range(9):
        time.now += 601
        assert swept() == {"postponed": 1}
    [record] = store.records.values()
    assert (record.state, record.reason, record.attempts) == (State.DEAD, "exhausted", 10)
    assert "no queue" in record.last_error and record.first_attempt == time.now - 9 * 601


def test_a_swept_task_that_the_service_finds_too_large_is_claimed_and_kept(
    queue: Queue, store: MemoryStore, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_between_commit_and_send(queue, store, "data")
    send, answers = MemoryTransport.send, [TaskSizeRefusedError()]

    def picky(self: MemoryTransport, message: Message) -> str:
        if answers:
            raise answers.pop()
        return send(self, message)

    monkeypatch.setattr(MemoryTransport, "send", picky)
    time.now += 61
    assert swept() == {"sent": 1}
    [record] = store.records.values()
    assert record.is_claim_check and record.state is State.SENT
    drain()
    assert calls == [("data",)] and store.records == {}


def test_two_sweeps_never_send_one_record_twice(queue: Queue, store: MemoryStore, time: Time) -> None:
    crash_between_commit_and_send(queue, store)
    time.now += 61
    [leased] = store.lease_due(now=time.now, limit=1, seconds=sweep.LEASE)
    assert swept() == {}
    time.now += sweep.LEASE
    assert swept() == {"sent": 1}
    assert not store.mark(leased.id, lease=leased.lease, state=State.DEAD)


def test_a_record_that_cannot_be_sent_does_not_stop_the_others(
    queue: Queue, store: MemoryStore, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = crash_between_commit_and_send(queue, store)
    crash_between_commit_and_send(queue, store)
    send = MemoryTransport.send

    def broken(self: MemoryTransport, message: Message) -> str:
        if message.routing.name == bad:
            raise ValueError("a bug")
        return send(self, message)

    monkeypatch.setattr(MemoryTransport, "send", broken)
    time.now += 61
    assert swept() == {"failed": 1, "sent": 1}


def test_sweepers_are_run_with_what_is_left_of_the_budget(
    queue: Queue, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_sweepers", {})
    asked: list[float | None] = []
    sweep.register_sweeper("requeued", lambda until: asked.append(until) or 2)  # type: ignore[func-returns-value]
    assert dict(sweep.sweep(budget=5).counts) == {"requeued": 2}
    assert asked == [time.now + 5]


class Slow(Queue):
    """A queue whose every answer takes a second."""

    time: Time

    def send(self, message: Message) -> str:
        self.time.now += 1
        return super().send(message)


def test_what_cannot_be_swept_stops_no_other(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(MemoryStore):
        def lease_due(self, **given: Any) -> list[Any]:
            raise OSError("the database is down")

    transport, good = Queue(), MemoryStore()
    monkeypatch.setattr(sweep, "_sweepers", {"broken": lambda until: 1 // 0, "requeued": lambda until: 2})
    with in_memory(transport=transport, store=Broken(alias="down"), joins=[good]):
        with good.transaction():
            transport.error = TransportUnavailableError()
            defer(note)
        transport.error, time.now = None, time.now + 61
        assert swept() == {"failed": 2, "sent": 1, "requeued": 2}


def test_a_backlog_leaves_time_for_the_sweepers(
    store: MemoryStore, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = Slow()
    transport.time = time
    asked: list[float] = []
    monkeypatch.setattr(sweep, "_sweepers", {"requeued": lambda until: asked.append(until - time.now) or 0})
    with in_memory(transport=transport, store=store):
        for _ in range(30):
            crash_between_commit_and_send(transport, store)
        time.now += 61
        assert sweep.sweep(budget=10).counts["sent"] == 5
    assert asked == [5]


def test_a_sweep_stops_when_its_budget_is_spent(
    queue: Queue, store: MemoryStore, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_sweepers", {})
    for _ in range(sweep.PAGE + 10):
        crash_between_commit_and_send(queue, store)
    time.now += 61
    send = queue.send

    def slow(message: Message) -> str:
        time.now += 1
        return send(message)

    queue.send = slow  # type: ignore[method-assign]
    assert sweep.sweep(budget=10).counts["sent"] == 10
    time.now += sweep.LEASE
    assert sweep.sweep().counts["sent"] == sweep.PAGE
    assert len(queue.queued()) == sweep.PAGE + 10


def test_a_handling_process_sweeps_after_a_task_once_an_interval(
    store: MemoryStore, time: Time, monkeypatch: Any
) -> None:
    monkeypatch.setattr(sweep, "_last", 0.0)
    transport = Queue()
    with in_memory(transport=transport, store=store, sweep_interval=60, sweep_grace=5):
        lost = crash_between_commit_and_send(transport, store)
        time.now += 61
        defer(note)
        drain()
        assert lost not in store.records and len(calls) == 2
        lost = crash_between_commit_and_send(transport, store)
        time.now += 59
        defer(note)
        drain()
        assert lost in store.records
        time.now += 1
        defer(note)
        drain()
        assert lost not in store.records


def test_a_process_whose_tasks_all_fail_sweeps_too_unless_its_caller_sees_that(
    store: MemoryStore, time: Time, monkeypatch: Any
) -> None:
    monkeypatch.setattr(sweep, "_last", 0.0)
    transport = Queue()
    with in_memory(transport=transport, store=store, sweep_interval=60, sweep_grace=5):
        lost = crash_between_commit_and_send(transport, store)
        time.now += 61
        defer(int, "no number")
        body = transport.queued()[-1].message.body
        for target, is_left in (("memory", True), ("http", False)):
            with pytest.raises(ValueError, match="invalid literal"):
                execute(body, Delivery(task_name="7f", queue="default", retry_count=0, target=target))
            assert (lost in store.records) is is_left


def test_a_clock_that_is_set_back_does_not_stop_the_sweep_after_tasks(
    store: MemoryStore, time: Time, monkeypatch: Any
) -> None:
    monkeypatch.setattr(sweep, "_last", 0.0)
    swept_at: list[float] = []
    monkeypatch.setattr(sweep, "sweep", lambda **given: swept_at.append(time.now))
    with in_memory(transport=Queue(), store=store, sweep_interval=60):
        began = time.now
        for time.now in (began, began - 3600, began - 3541, began - 3540):
            sweep.after_task(current())
    assert swept_at == [began, began - 3600, began - 3540]


@pytest.mark.parametrize("settings", [{"sweep_interval": 0}, {"transport": None}])
def test_a_handling_process_that_is_not_to_sweep_or_cannot_does_not(
    store: MemoryStore, time: Time, monkeypatch: Any, settings: dict[str, Any]
) -> None:
    transport = Queue()
    monkeypatch.setattr(sweep, "_last", 0.0)
    monkeypatch.setattr(sweep, "sweep", lambda **given: pytest.fail("it swept"))
    with in_memory(transport=transport, store=store):
        defer(note)
        [task] = transport.queued()
    with configured(**{"transport": transport, "store": store, **settings}):
        assert run_one(task, transport) is Outcome.DONE


def test_dead_letters_expire(queue: Queue, store: MemoryStore, time: Time) -> None:
    queue.error = AmbiguousSendError()
    defer(note)
    time.now += 3601
    assert swept() == {"held": 1}
    time.now += 30 * 86400
    assert store.count(State.DEAD) == 1
    time.now += 3601
    assert swept() == {"expired": 1}
    assert store.records == {}


# --- two who hold a record, one after the other -----------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", os.urandom(300_000)], ids=["inline", "claimed"])
@pytest.mark.parametrize(
    "changes", [{"attempts": 3, "due": 1.0}, {"state": State.DEAD, "reason": "held"}], ids=["postponed", "dead"]
)
def test_a_sweep_that_was_held_up_changes_nothing_of_what_another_has_made_of_a_record(
    queue: Queue, store: MemoryStore, time: Time, monkeypatch: pytest.MonkeyPatch, data: bytes, changes: dict[str, Any]
) -> None:
    record_id = crash_between_commit_and_send(queue, store, data)
    time.now += 61
    send = queue.send

    def held_up(message: Message) -> str:
        """While the answer is on its way, the lease ends, and another sweep takes the record."""
        answer = send(message)
        time.now += sweep.LEASE
        [taken] = store.lease_due(now=time.now, limit=1, seconds=60)
        assert store.mark(record_id, lease=taken.lease, **changes)
        return answer

    monkeypatch.setattr(queue, "send", held_up)
    monkeypatch.setattr(sweep, "_sweepers", {})
    sweep.sweep(budget=1)
    found = store.get(record_id)
    assert found is not None
    assert {name: getattr(found, name) for name in changes} == changes and found.state is not State.SENT


def test_a_failure_for_good_while_a_sweep_holds_the_record_is_one_letter(
    queue: Queue, store: MemoryStore, time: Time
) -> None:
    crash_between_commit_and_send(queue, store, os.urandom(300_000))
    time.now += 61
    assert swept() == {"sent": 1}
    [task] = queue.queued()
    record = next(iter(store.records.values()))
    store.mark(record.id, lease="", state=State.PENDING)  # as it is where the answer was not noted
    [held] = store.lease_due(now=time.now + 1000, limit=1, seconds=60)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(globals(), "calls", Refusing())
        assert run_one(task, queue) is Outcome.PERMANENT
    assert not store.mark(held.id, lease=held.lease, state=State.SENT)
    assert not store.delete([held.id], lease=held.lease)
    assert swept() == {}
    [letter] = store.records.values()
    assert (letter.state, letter.reason, queue.queued()) == (State.DEAD, "permanent", [])
    assert "never" in letter.last_error


class Refusing:
    def append(self, args: Any) -> None:
        raise PermanentTaskFailure("never")


# --- its share for each -----------------------------------------------------------------------------------------------


@pytest.fixture
def slow(time: Time, monkeypatch: pytest.MonkeyPatch) -> Slow:
    monkeypatch.setattr(sweep, "_sweepers", {})
    monkeypatch.setattr(sweep, "_turns", itertools.count())
    transport = Slow()
    transport.time = time
    return transport


def left_behind(store: MemoryStore, time: Time, count: int) -> None:
    store.put([TaskRecord(id=new_id(), envelope=b"\xdf", due=time.now) for _ in range(count)])


def test_a_backlog_of_one_store_leaves_the_others_their_share(slow: Slow, time: Time) -> None:
    stores = [MemoryStore(alias=name) for name in "abc"]
    with in_memory(transport=slow, store=stores[0], joins=stores[1:]):
        for store, count in zip(stores, (500, 1, 500), strict=True):
            left_behind(store, time, count)
        assert sweep.sweep(budget=9).counts["sent"] >= 7
    assert stores[1].count(State.PENDING) == 0
    assert all(store.count(State.PENDING) < 499 for store in (stores[0], stores[2]))


def test_another_store_begins_each_time(slow: Slow, time: Time) -> None:
    """Where the time is too short for more than one."""
    stores = [MemoryStore(alias=name) for name in "abc"]
    with in_memory(transport=slow, store=stores[0], joins=stores[1:]):
        for store in stores:
            left_behind(store, time, 500)
        for _ in stores:
            sweep.sweep(budget=0.1)
            time.now += sweep.LEASE
    assert [store.count(State.PENDING) for store in stores] == [499] * 3


def test_what_expires_is_not_held_up_by_a_backlog(slow: Slow, time: Time) -> None:
    store = MemoryStore()
    with in_memory(transport=slow, store=store):
        left_behind(store, time, 500)
        store.put([TaskRecord(id=new_id(), envelope=b"", state=State.DEAD, created=1.0) for _ in range(100)])
        counts = sweep.sweep(budget=4).counts
    assert counts["expired"] == 100 and counts["sent"] >= 3


def test_a_sweeper_has_its_share_too(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    sweepers = {name: lambda until: asked.append(until - time.now) or 0 for name in "ab"}  # type: ignore[func-returns-value]
    monkeypatch.setattr(sweep, "_sweepers", sweepers)
    with in_memory():
        sweep.sweep(budget=8)
    assert asked == [4, 8]


@pytest.mark.parametrize("step", ["mark", "delete"])
def test_a_record_whose_answer_cannot_be_noted_holds_up_no_other(
    queue: Queue, store: MemoryStore, time: Time, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """As where a database does not take the text of a refusal."""
    bad = crash_between_commit_and_send(queue, store)
    for _ in range(3):
        crash_between_commit_and_send(queue, store)
    time.now += 61
    if step == "mark":
        queue.error = TransportUnavailableError("\ud800")
    done = getattr(store, step)

    def refusing(*args: Any, **kwargs: Any) -> Any:
        if bad in (args[0], *args[0]):
            raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")
        return done(*args, **kwargs)

    monkeypatch.setattr(store, step, refusing)
    assert swept() == {"failed": 1, ("postponed" if step == "mark" else "sent"): 3}


def test_a_refusal_in_odd_text_is_noted(queue: Queue, store: MemoryStore, time: Time) -> None:
    crash_between_commit_and_send(queue, store)
    time.now += 61
    queue.error = TransportUnavailableError("a\x00b \udcff")
    assert swept() == {"postponed": 1}
    [record] = store.records.values()
    assert record.last_error.encode() and "\0" not in record.last_error
