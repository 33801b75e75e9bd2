"""A signed body that is posted again: through its own queue alone, where `bind_queue` is set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from defer_core import Delivery, Outcome, clock, config, defer, defer_many, execute
from defer_core.record import State
from defer_core.testing import MemoryTransport, drain, in_memory
from defer_core.upkeep import dead_letters
from defer_core.wire import envelope, frame
from defer_core.wire.binding import HEADER

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


def test_a_body_that_is_signed_for_one_queue_is_refused_in_another() -> None:
    with in_memory(**KEYS, bind_queue=True) as queue:
        defer(note, 1, _queue="mail")
        defer_many(note, [(2,), (3,)], _queue="slow")
        defer(note, 4)
        mail, slow, slow2, default = bodies(queue)
        assert delivered(mail, "mail") is delivered(slow, "slow") is delivered(slow2, "slow") is Outcome.DONE
        assert delivered(default) is Outcome.DONE
        calls.clear()
        for body, through in ((mail, "slow"), (slow, "mail"), (default, "mail"), (slow2, ""), (mail, "mail\n")):
            assert delivered(body, through) is Outcome.PERMANENT
        assert {letter.reason for letter in letters()} == {"wrong queue"} and calls == []
        assert "signed for the queue mail and came through slow" in "".join(each.last_error for each in letters())


def test_without_it_the_queue_is_nobodys_business() -> None:
    with in_memory(**KEYS) as queue:
        defer(note, 1, _queue="mail")
        [unbound] = bodies(queue)
        assert HEADER not in envelope.decode(frame.unwrap(unbound), config.current().signer).trace
        assert delivered(unbound, "slow") is Outcome.DONE
    with in_memory(**KEYS, bind_queue=True) as queue:
        assert delivered(unbound, "slow") is Outcome.DONE  # it was sent before
        defer(note, 1, _queue="mail")
        [bound] = bodies(queue)
    with in_memory(**KEYS):
        assert delivered(bound, "slow") is Outcome.DONE  # whoever reads it is not told to ask


def test_nobody_takes_the_queue_out_of_a_body() -> None:
    with in_memory(**KEYS, bind_queue=True) as queue:
        defer(note, 1, _queue="mail")
        [body] = bodies(queue)
        forged = frame.wrap(frame.unwrap(body).replace(b"mail", b"slow"))
        assert delivered(forged, "slow") is Outcome.PERMANENT
        assert [letter.reason for letter in letters()] == ["unverified"]


def test_a_person_runs_what_came_through_another_queue_where_it_came() -> None:
    with in_memory(**KEYS, bind_queue=True) as queue:
        defer(note, 1, _queue="mail")
        assert delivered(*bodies(queue), "slow") is Outcome.PERMANENT  # type: ignore[misc]
        queue.tasks.clear()
        [letter] = letters()
        dead_letters.rerun(letter.id, config.current().the_store)  # type: ignore[arg-type]
        assert [each.message.routing.queue for each in queue.queued()] == ["slow"]
        assert drain(queue).done == 1
    assert calls == [(1,)]


def test_every_way_to_a_queue_says_which(now: Callable[[float], None]) -> None:
    with in_memory(**KEYS, bind_queue=True) as queue:
        for queue_name in ("default", "mail"):
            defer(note, 1, _queue=queue_name, _small_task=True)
            defer(note, "x" * 200_000, _queue=queue_name, _countdown=5)
        now(0.1)
        assert drain(queue).done == 4
        store = config.current().the_store
        assert store is not None and store.count(State.DEAD) == 0
