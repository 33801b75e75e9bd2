"""A task that fails is seen as long as its queue goes on, and is kept once it gives up."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest

from defer_core import (
    Delivery,
    Outcome,
    PermanentTaskFailure,
    RetryOptions,
    SingularTaskFailure,
    clock,
    config,
    defer,
    execute,
)
from defer_core.errors import CallableNotFoundError
from defer_core.record import State, TaskRecord
from defer_core.run.decode import decode_body
from defer_core.testing import MemoryStore, MemoryTransport, drain, in_memory
from defer_core.upkeep import dead_letters, failing, sweep
from defer_core.wire import envelope, frame

DAY = 86400.0
NOW = 1_800_000_000.0
DELIVERY = Delivery(task_name="7f", queue="mail", retry_count=0, target="http", started=NOW)
BODIES = {"inline": b"x", "stored": os.urandom(150_000)}
failure: Exception | None = None


def ship(*args: Any) -> None:
    if failure is not None:
        raise failure


class Time:
    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Iterator[Time]:
    source = Time()
    with clock.replaced(source), patch(f"{__name__}.failure", ValueError("order 4711 has no lines")):
        yield source


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def queue(store: MemoryStore, time: Time) -> Iterator[MemoryTransport]:
    with in_memory(store=store) as transport:
        yield transport


def body_of(queue: MemoryTransport, *args: Any, **options: Any) -> bytes:
    """The body that a defer sends, with the queue emptied again, and its record forgotten if it can be."""
    defer(ship, *args, **options)
    body: bytes = queue.queued()[-1].message.body
    queue.clear()
    store = config.current().the_store
    assert store is not None
    sent = store.forgotten.peek()
    store.put([], forget=sent)
    store.forgotten.drop(sent)
    return body


def attempt(body: bytes, number: int, **fields: Any) -> Outcome | Exception:
    """What the queue is told of an attempt; the first is 1."""
    given = {"retry_count": number - 1, "started": clock.now(), **fields}
    try:
        return execute(body, replace(DELIVERY, **given))
    except ValueError as error:
        return error


def only(store: MemoryStore) -> TaskRecord:
    [record] = store.records.values()
    return record


def succeed() -> None:
    globals()["failure"] = None


@pytest.mark.parametrize("payload", BODIES.values(), ids=BODIES)
def test_a_failing_task_is_seen_until_it_succeeds(
    queue: MemoryTransport, store: MemoryStore, time: Time, payload: bytes
) -> None:
    body = body_of(queue, payload)
    for number in (1, 2, 3):
        time.now += 10
        assert isinstance(attempt(body, number), ValueError)
        record = only(store)
        assert (record.state, record.attempts, record.reason) == (State.FAILING, number, "")
        assert (record.first_attempt, record.last_attempt) == (NOW + 10, time.now)
        assert "order 4711 has no lines" in record.last_error and "in ship" in record.last_error
        assert record.due == time.now + 3600 + failing.SILENCE
        assert record.label.endswith(":ship") and record.routing.queue in ("mail", "default")
    succeed()
    assert attempt(body, 4) is Outcome.DONE
    assert store.records == {}


def test_a_legacy_body_is_seen_too(store: MemoryStore, time: Time) -> None:
    body = pickle.dumps((ship, (), {}))
    with in_memory(store=store, accept_legacy_pickles=True, queues=[{"name": "mail", "retry_max_attempts": 2}]):
        attempt(body, 1)
        assert (only(store).state, only(store).envelope) == (State.FAILING, body)
        attempt(body, 2)
        assert only(store).reason == "gave up"
        succeed()
        dead_letters.rerun(only(store).id, store)
        assert drain().done == 1
    assert store.count(State.DEAD) == 0


def test_a_permanent_failure_turns_the_failing_record_into_the_letter(
    queue: MemoryTransport, store: MemoryStore
) -> None:
    body = body_of(queue, _retry_options={"min_backoff": 5})
    attempt(body, 1)
    with patch(f"{__name__}.failure", PermanentTaskFailure("never")):
        assert attempt(body, 2) is Outcome.PERMANENT
    letter = only(store)
    assert (letter.state, letter.reason, letter.attempts) == (State.DEAD, "permanent", 2)
    assert letter.routing.retry == RetryOptions(min_backoff=5.0)


def test_a_task_that_asks_for_repetitions_is_seen_and_given_up(queue: MemoryTransport, store: MemoryStore) -> None:
    body = body_of(queue, _retry_options={"max_attempts": 2})
    with patch(f"{__name__}.failure", SingularTaskFailure("not yet")):
        assert attempt(body, 1) is Outcome.RETRY
        assert only(store).state is State.FAILING
        assert attempt(body, 2) is Outcome.RETRY
    assert only(store).reason == "gave up"


def test_a_later_task_of_the_same_name_has_a_record_of_its_own(
    queue: MemoryTransport, store: MemoryStore, time: Time
) -> None:
    first = body_of(queue, _name="7f")
    attempt(first, 1)
    time.now += 1
    attempt(body_of(queue, _name="7f"), 1)
    assert store.count(State.FAILING) == 2
    attempt(first, 1)
    assert store.count(State.FAILING) == 2


def test_a_late_duplicate_that_succeeds_takes_the_letter_away(queue: MemoryTransport, store: MemoryStore) -> None:
    body = body_of(queue, _retry_options={"max_attempts": 1})
    attempt(body, 1)
    succeed()
    attempt(body, 2)
    assert store.records == {}


def test_two_deliveries_that_fail_at_once_leave_one_record(queue: MemoryTransport, store: MemoryStore) -> None:
    """The other one has written between our look and our write."""
    body, put = body_of(queue), store.put

    def refused(records: Any, forget: Any = ()) -> None:
        put(records, forget)
        raise RuntimeError("UNIQUE constraint failed")

    with patch.object(store, "put", refused):
        attempt(body, 1)
    assert only(store).attempts == 1


# --- what is not kept -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{"retry_count": None}, {"target": "memory"}, {"target": "immediate"}])
def test_attempts_without_a_count_and_those_of_tests_keep_nothing(
    queue: MemoryTransport, store: MemoryStore, fields: dict[str, Any]
) -> None:
    body = body_of(queue)
    attempt(body, 1, **fields)
    assert store.records == {}


def test_a_task_that_sees_to_itself_is_not_kept(queue: MemoryTransport, store: MemoryStore) -> None:
    body = body_of(queue, _retry_options={"max_attempts": 1})
    with patch.object(ship, "sees_to_itself", True, create=True):
        attempt(body, 1)
    assert store.records == {}


def test_a_success_at_once_touches_no_store(queue: MemoryTransport, store: MemoryStore) -> None:
    body = body_of(queue, _small_task=True)
    succeed()
    touched: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        for name in ("put", "get", "mark", "delete", "count"):
            patched.setattr(store, name, lambda *args, name=name, **kwargs: touched.append(name))
        assert attempt(body, 1) is Outcome.DONE
    assert touched == []


def test_no_more_than_the_limit_are_kept_and_letters_always(store: MemoryStore, time: Time) -> None:
    with in_memory(store=store, max_failing=2) as queue:
        with patch.object(store, "count", wraps=store.count) as count:
            for _ in range(5):
                time.now += 1
                attempt(body_of(queue), 1)
            assert count.call_count == 1
        assert store.count(State.FAILING) == 2
        attempt(body_of(queue, _retry_options={"max_attempts": 1}), 1)
        assert store.count(State.DEAD) == 1
        time.now += 61
        store.delete([store.list(State.FAILING)[0].id])
        attempt(body_of(queue), 1)
        assert store.count(State.FAILING) == 2


@pytest.mark.parametrize("method", ["mark", "put", "get", "count"])
def test_a_store_that_is_down_changes_no_answer(
    queue: MemoryTransport, store: MemoryStore, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    body = body_of(queue)
    with patch.object(store, method, side_effect=RuntimeError("down")):
        assert isinstance(attempt(body, 1), ValueError)
        with patch.object(store, "delete", side_effect=RuntimeError("down")):
            succeed()
            assert attempt(body, 2) is Outcome.DONE
    assert "failed at attempt 1: ValueError" in caplog.text


# --- given up without a word ------------------------------------------------------------------------------------------


def swept() -> dict[str, int]:
    return dict(sweep.sweep().counts)


@pytest.mark.parametrize("payload", BODIES.values(), ids=BODIES)
def test_a_failing_task_that_its_queue_has_dropped_becomes_a_letter(
    queue: MemoryTransport, store: MemoryStore, time: Time, payload: bytes
) -> None:
    body = body_of(queue, payload)
    attempt(body, 1)
    time.now += 3600 + DAY - 1
    assert swept() == {} and queue.queued() == []
    time.now += 1
    assert swept() == {"silent": 1} and queue.queued() == []
    assert (only(store).state, only(store).reason, only(store).attempts) == (State.DEAD, "silent", 1)
    attempt(body, 2)
    assert (only(store).state, only(store).reason) == (State.FAILING, "")
    succeed()
    attempt(body, 3)
    assert store.records == {}


def test_a_longer_wait_that_is_known_is_waited_for(queue: MemoryTransport, store: MemoryStore, time: Time) -> None:
    attempt(body_of(queue, _retry_options={"max_backoff": 3 * DAY}), 1)
    time.now += 4 * DAY - 1
    assert swept() == {}
    time.now += 1
    assert swept() == {"silent": 1}


def test_a_stored_task_that_no_queue_can_still_hold_becomes_a_letter(
    queue: MemoryTransport, store: MemoryStore, time: Time
) -> None:
    defer(ship, os.urandom(150_000))
    queue.clear()
    time.now += 61
    assert swept() == {"sent": 1}
    time.now += 61 * DAY
    assert swept() == {} and only(store).state is State.SENT
    time.now += 2 * DAY
    assert swept() == {"silent": 1}
    assert swept() == {}
    assert (only(store).state, only(store).reason) == (State.DEAD, "silent")
    time.now += 31 * DAY
    assert swept() == {"expired": 1}


def test_a_run_has_the_last_word_over_a_sweep(queue: MemoryTransport, store: MemoryStore, time: Time) -> None:
    body = body_of(queue)
    attempt(body, 1)
    time.now += 2 * DAY
    [held] = store.lease_due(now=time.now, limit=1, seconds=60, state=State.FAILING)
    attempt(body, 2)
    assert not store.mark(held.id, lease=held.lease, state=State.DEAD, reason="silent")
    assert (only(store).state, only(store).attempts) == (State.FAILING, 2)


# --- what cannot be read ----------------------------------------------------------------------------------------------


def test_the_last_attempt_ends_the_grace_of_what_cannot_be_read(queue: MemoryTransport, store: MemoryStore) -> None:
    body = body_of(queue, _retry_options={"max_attempts": 2})
    with patch("defer_core.wire.decoder.unpack_call", side_effect=CallableNotFoundError("not yet here")):
        assert attempt(body, 1) is Outcome.RETRY
        assert store.records == {}
        assert attempt(body, 2) is Outcome.PERMANENT
    assert (only(store).reason, only(store).attempts) == ("unreadable", 2)


def test_a_payload_that_is_gone_at_the_last_attempt_was_done(queue: MemoryTransport, store: MemoryStore) -> None:
    body = body_of(queue, BODIES["stored"], _retry_options={"max_attempts": 2})
    store.delete(list(store.records))
    assert attempt(body, 1) is Outcome.RETRY
    assert attempt(body, 2) is Outcome.DONE
    assert store.records == {}


def test_a_stranger_cannot_write_over_a_record(store: MemoryStore, time: Time) -> None:
    with in_memory(store=store, keys=["key"]) as queue:
        body = body_of(queue)
        attempt(body, 1)
        unsigned = frame.wrap(envelope.encode(envelope.decode(frame.unwrap(body), config.current().signer)))
        attempt(unsigned, 1)
        attempt(unsigned, 1)
    assert (store.count(State.FAILING), store.count(State.DEAD)) == (1, 2)


# --- re-runs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", BODIES.values(), ids=BODIES)
def test_a_rerun_is_a_new_task_that_a_late_failure_of_the_old_one_does_not_touch(
    queue: MemoryTransport, store: MemoryStore, time: Time, payload: bytes
) -> None:
    body = body_of(queue, payload, _retry_options={"max_attempts": 2})
    attempt(body, 2)
    letter = only(store)
    handle = dead_letters.rerun(letter.id, store)
    again = only(store)
    assert again.id == handle.record_id != letter.id and again.state is State.PENDING
    assert again.routing.retry == RetryOptions(max_attempts=2)
    time.now += 4000
    attempt(body, 3)
    assert store.get(again.id) == again
    succeed()
    assert drain().done == 1


def test_a_letter_whose_payload_was_altered_is_not_rerun(queue: MemoryTransport, store: MemoryStore) -> None:
    attempt(body_of(queue, BODIES["stored"], _retry_options={"max_attempts": 1}), 1)
    letter = only(store)
    assert letter.payload is not None
    store.put([replace(letter, payload=letter.payload[:-1] + b"!")])
    with pytest.raises(Exception, match="not the one that the task was sent with"):
        dead_letters.rerun(letter.id, store)
    assert only(store).state is State.DEAD


def test_an_expired_letter_runs_when_a_person_says_so(store: MemoryStore, time: Time) -> None:
    with in_memory(store=store, keys=["key"], expires_after=60) as queue:
        body = body_of(queue)
        time.now += 61
        assert attempt(body, 1) is Outcome.PERMANENT
        succeed()
        dead_letters.rerun(only(store).id, store)
        assert drain().done == 1


# --- the log ----------------------------------------------------------------------------------------------------------


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, bool]]:
    lines = [(each.levelname, each.getMessage(), bool(each.exc_info)) for each in caplog.records]
    caplog.clear()
    return lines


def test_a_line_an_attempt(queue: MemoryTransport, caplog: pytest.LogCaptureFixture) -> None:
    body = body_of(queue, _retry_options={"max_attempts": 3})
    for number in (1, 2, 3):
        attempt(body, number)
    line = f"Task 7f ({__name__}:ship) failed at attempt %d of 3: ValueError('order 4711 has no lines')"
    assert told(caplog) == [("WARNING", line % 1, True), ("WARNING", line % 2, False), ("ERROR", line % 3, True)]


def test_a_line_without_a_known_limit(queue: MemoryTransport, caplog: pytest.LogCaptureFixture) -> None:
    attempt(body_of(queue), 4)
    [(level, line, traceback)] = told(caplog)
    assert (level, traceback) == ("WARNING", False) and "failed at attempt 4: ValueError" in line


def test_a_poll_has_no_traceback_until_it_is_given_up(queue: MemoryTransport, caplog: pytest.LogCaptureFixture) -> None:
    body = body_of(queue, _retry_options={"max_attempts": 2})
    with patch(f"{__name__}.failure", SingularTaskFailure("not yet")):
        attempt(body, 1)
        attempt(body, 2)
    assert [(level, traceback) for level, _, traceback in told(caplog)] == [("WARNING", False), ("ERROR", True)]


def test_a_permanent_failure_is_an_error_with_its_traceback(
    queue: MemoryTransport, caplog: pytest.LogCaptureFixture
) -> None:
    with patch(f"{__name__}.failure", PermanentTaskFailure("never")):
        attempt(body_of(queue), 2)
    [(level, line, traceback)] = told(caplog)
    assert (level, traceback) == ("ERROR", True)
    assert "failed for good at attempt 2: PermanentTaskFailure('never')" in line


def test_a_traceback_that_is_shown_elsewhere_is_not_logged(
    queue: MemoryTransport, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match="4711"):
        execute(body_of(queue), DELIVERY, shown=True)
    assert [traceback for *_, traceback in told(caplog)] == [False]


class OddError(ValueError):
    def __repr__(self) -> str:
        raise RuntimeError

    __str__ = __repr__


@pytest.mark.parametrize(
    ("error", "expected"),
    [(ValueError("a\nCRITICAL: forged\x1b[31m" + "x" * 5000), "forged"), (OddError(), "OddError")],
)
def test_a_message_that_would_break_the_log_is_one_short_line(
    queue: MemoryTransport, caplog: pytest.LogCaptureFixture, error: Exception, expected: str
) -> None:
    with caplog.at_level(logging.INFO), patch(f"{__name__}.failure", error):
        attempt(body_of(queue), 1, task_name="7f\nforged")
    [(_, line, _)] = told(caplog)
    assert expected in line and len(line) < 500 and line.isprintable()


# --- attempts that end their process ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BODIES)
def test_a_task_that_ends_its_process_is_seen_at_its_next_attempt(
    queue: MemoryTransport, store: MemoryStore, time: Time, kind: str
) -> None:
    """Nothing of the attempt before was noted; and this one ends its process, too."""
    body = body_of(queue, BODIES[kind], _retry_options={"max_attempts": 2})
    failing.begin(decoded(body), body, replace(DELIVERY, retry_count=1), config.current())
    [record] = store.list(State.FAILING)
    assert (record.attempts, record.label) == (1, f"{__name__}:ship") and "process ended" in record.last_error
    time.now += 3 * DAY
    assert swept() == {"silent": 1}
    [record] = store.list(State.DEAD)
    assert record.reason == "silent"


def test_a_first_attempt_and_a_task_that_is_known_to_fail_are_not_noted_before_they_run(
    queue: MemoryTransport, store: MemoryStore, time: Time
) -> None:
    body = body_of(queue, b"x")
    with patch.object(store, "get", wraps=store.get) as get, patch.object(store, "put", wraps=store.put) as put:
        failing.begin(decoded(body), body, DELIVERY, config.current())
        assert not get.called and not put.called
    assert isinstance(attempt(body, 1), ValueError)
    [before] = store.list(State.FAILING)
    failing.begin(decoded(body), body, replace(DELIVERY, retry_count=1), config.current())
    assert store.list(State.FAILING) == [before]


def test_a_repetition_that_succeeds_forgets_what_was_noted_before_it(
    queue: MemoryTransport, store: MemoryStore, time: Time
) -> None:
    body = body_of(queue, b"x")
    with patch(f"{__name__}.failure", None):
        assert attempt(body, 2) is Outcome.DONE
    assert not store.records


@pytest.mark.parametrize("error", [KeyboardInterrupt(), GeneratorExit(), BaseException("deadline")])
def test_what_is_no_exception_is_noted_and_goes_on_its_way(
    queue: MemoryTransport, store: MemoryStore, time: Time, error: BaseException
) -> None:
    body = body_of(queue, b"x", _retry_options={"max_attempts": 2})
    with patch(f"{__name__}.failure", error):
        for number in (1, 2):
            with pytest.raises(type(error)):
                execute(body, replace(DELIVERY, retry_count=number - 1))
    [record] = store.list(State.DEAD)
    assert (record.reason, record.attempts) == ("gave up", 2) and type(error).__name__ in record.last_error


def decoded(body: bytes) -> Any:
    found = decode_body(body, DELIVERY, config.current())
    assert found is not None
    return found
