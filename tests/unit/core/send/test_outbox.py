"""From a task to its record: inline or by claim check, and until when it may run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from defer_core import Delivery, Outcome, Task, clock, config, defer, execute
from defer_core.errors import (
    DecodeError,
    NotYetReadableError,
    PayloadTooLargeError,
    TransportUnavailableError,
)
from defer_core.send.outbox import serialize
from defer_core.testing import MemoryStore, MemoryTransport, drain, in_memory
from defer_core.upkeep import dead_letters, sweep
from defer_core.wire.envelope import decode
from defer_core.wire.frame import unwrap

DAY = 86400.0
KEYS = {"keys": ["k" * 32], "sweep_interval": 0.0}
calls: list[Any] = []


def note(*args: Any) -> None:
    calls.append(args)


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set the clock, in days from a beginning."""
    calls.clear()
    at = [1.8e9]
    monkeypatch.setattr(clock, "now", lambda: at[0])

    def set_to(days: float) -> None:
        at[0] = 1.8e9 + days * DAY

    return set_to


def bodies(queue: MemoryTransport) -> list[bytes]:
    return [each.message.body for each in queue.queued()]


def delivered(body: bytes, queue: str = "default", target: str = "http") -> Outcome:
    return execute(body, Delivery(task_name="t", queue=queue, retry_count=0, target=target))


def letters() -> list[Any]:
    store = config.current().the_store
    assert store is not None
    return list(dead_letters.dead_letters(store))


def test_a_task_expires_when_no_queue_can_hold_it_any_longer(now: Callable[[float], None]) -> None:
    assert config.Config().expires_after == 62 * DAY
    with in_memory(**KEYS) as queue:
        defer(note, 1)
        [body] = bodies(queue)
        now(61.9)
        assert delivered(body) is Outcome.DONE
        now(62.1)
        assert delivered(body) is Outcome.PERMANENT
        assert [letter.reason for letter in letters()] == ["expired"]
    assert calls == [(1,)]


@pytest.mark.parametrize("never", [None, 0])
def test_and_never_where_that_is_said(now: Callable[[float], None], never: float | None) -> None:
    with in_memory(**KEYS, expires_after=never) as queue:
        defer(note, 1)
        now(1000)
        assert delivered(*bodies(queue)) is Outcome.DONE
    assert config.from_environment({"DEFER_EXPIRES_AFTER": "0"}).expires_after == 0


def test_the_time_begins_when_the_task_is_due(now: Callable[[float], None]) -> None:
    with in_memory(**KEYS, expires_after=60) as queue:
        defer(note, 1, _countdown=DAY)
        now(1.0001)
        assert delivered(*bodies(queue)) is Outcome.DONE
        now(1.1)
        assert delivered(*bodies(queue)) is Outcome.PERMANENT


def test_what_was_queued_by_an_earlier_release_does_not_expire(now: Callable[[float], None]) -> None:
    with in_memory(**KEYS, expires_after=None) as queue:
        defer(note, 1)
        [body] = bodies(queue)
    now(100)
    with in_memory(**KEYS):
        assert delivered(body) is Outcome.DONE


@pytest.mark.parametrize("size", [10, 200_000], ids=["inline", "claimed"])
def test_a_person_runs_an_expired_letter_again(now: Callable[[float], None], size: int) -> None:
    text = "".join(chr(97 + number * number % 23) + str(number) for number in range(size // 4))
    with in_memory(**KEYS, inline_limit=1024) as queue:
        defer(note, text)
        [body] = bodies(queue)
        queue.tasks.clear()
        now(63)
        assert delivered(body) is Outcome.PERMANENT
        [letter] = letters()
        store = config.current().the_store
        assert store is not None
        dead_letters.rerun(letter.id, store)
        assert drain(queue).done == 1 and calls == [(text,)] and letters() == []
        for at in (20, len(letter.envelope) - 1):
            tampered = letter.envelope[:at] + bytes([letter.envelope[at] ^ 1]) + letter.envelope[at + 1 :]
            store.put([replace(letter, id="f" * 32, envelope=tampered)])
            with pytest.raises((DecodeError, NotYetReadableError)):
                dead_letters.rerun("f" * 32, store)
            store.delete(["f" * 32])


def test_the_sweep_sends_what_has_expired_in_the_outbox_and_a_person_decides(now: Callable[[float], None]) -> None:
    with in_memory(**KEYS) as queue:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(type(queue), "send", _unavailable)
            defer(note, 1)
        now(70)
        assert sweep.sweep().counts["sent"] == 1
        drain(queue)
        [letter] = letters()
        assert (letter.reason, calls) == ("expired", [])
        dead_letters.rerun(letter.id, config.current().the_store)  # type: ignore[arg-type]
        drain(queue)
    assert calls == [(1,)]


def _unavailable(self: MemoryTransport, message: Any) -> str:
    raise TransportUnavailableError


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def queue(store: MemoryStore) -> Iterator[MemoryTransport]:
    calls.clear()
    with in_memory(store=store) as transport:
        yield transport


def test_a_large_task_travels_as_a_claim(queue: MemoryTransport, store: MemoryStore) -> None:
    data = os.urandom(300_000)
    handle = defer(note, data)
    assert handle.size < 1000
    claim = decode(unwrap(queue.queued()[0].message.body)).claim_check
    assert claim is not None and claim.key == handle.record_id and claim.size > 300_000
    drain()
    assert calls == [(data,)] and store.records == {}


def test_a_compressible_task_is_sent_inline(queue: MemoryTransport, store: MemoryStore) -> None:
    handle = defer(note, "x" * 300_000)
    assert handle.size < 10_000
    assert store.records[handle.record_id or ""].payload is None
    drain()
    assert calls == [("x" * 300_000,)]


def test_a_task_larger_than_a_store_takes_is_refused(queue: MemoryTransport, store: MemoryStore) -> None:
    for data in (os.urandom(store.max_payload), "compressible" * (store.max_payload // 12 + 1)):
        with pytest.raises(PayloadTooLargeError, match="defer its key"):
            defer(note, data)
    assert store.records == {} and queue.queued() == []


def test_a_task_is_serialized_however_large_and_neither_stored_nor_sent() -> None:
    with in_memory(inline_limit=1000, **KEYS) as transport:
        body = serialize(Task(func=note, args=("z" * 200_000,)))
        assert not transport.queued() and not config.current().the_store.records
        assert execute(body, Delivery()) is Outcome.DONE
    assert calls == [("z" * 200_000,)]
