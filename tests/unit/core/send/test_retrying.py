"""Which attempt is the last: by a task's own options, by its queue, by what the transport knows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from defer_core import (
    Delivery,
    Outcome,
    RetryOptions,
    clock,
    config,
    defer,
    execute,
)
from defer_core.record import State, TaskRecord
from defer_core.send import retrying
from defer_core.task import Routing
from defer_core.testing import MemoryStore, MemoryTransport, drain, in_memory
from defer_core.wire import envelope, frame

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
def test_the_last_attempt_that_its_own_options_allow_leaves_a_letter(
    queue: MemoryTransport, store: MemoryStore, payload: bytes
) -> None:
    body = body_of(queue, payload, _retry_options={"max_attempts": 3})
    states = []
    for number in (1, 2, 3):
        attempt(body, number)
        states.append((only(store).state, only(store).reason, only(store).attempts))
    assert states == [(State.FAILING, "", 1), (State.FAILING, "", 2), (State.DEAD, "gave up", 3)]


@pytest.mark.parametrize("options", [{"_small_task": True}, {}], ids=["small", "inline"])
def test_one_attempt_in_all(queue: MemoryTransport, store: MemoryStore, options: dict[str, Any]) -> None:
    attempt(body_of(queue, _retry_options={"max_attempts": 1}, **options), 1)
    assert (only(store).state, only(store).reason) == (State.DEAD, "gave up")


def test_the_queue_of_a_test_gives_up_by_the_tasks_own_options(queue: MemoryTransport, store: MemoryStore) -> None:
    for payload in BODIES.values():
        defer(ship, payload, _retry_options={"max_attempts": 3})
    drain(max_attempts=3, on_error="ignore")
    assert [(each.reason, each.attempts) for each in store.list(State.DEAD)] == [("gave up", 3)] * 2
    assert store.count(State.FAILING) == store.count(State.SENT) == 0


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ([{"name": "mail", "retry_max_attempts": 2}], [State.FAILING, State.DEAD]),
        ([{"name": "mail", "retry_max_attempts": 2, "retry_max_duration": 15}], [State.FAILING] * 2 + [State.DEAD]),
        ([{"name": "mail", "retry_max_attempts": -1}], [State.FAILING] * 3),
        ([{"name": "other", "retry_max_attempts": 1}], [State.FAILING] * 3),
    ],
    ids=["attempts", "attempts and age", "no limit", "another queue"],
)
def test_the_last_attempt_of_a_declared_queue_leaves_a_letter(
    store: MemoryStore, time: Time, declared: Any, expected: list[State]
) -> None:
    with in_memory(store=store, queues=declared) as queue:
        body = body_of(queue)
        for number, state in enumerate(expected, 1):
            attempt(body, number)
            assert only(store).state is state
            time.now += 10


def test_a_queue_that_was_declared_and_told_nothing_has_a_hundred_attempts(store: MemoryStore, time: Time) -> None:
    with in_memory(store=store, queues=["mail"]) as queue:
        body = body_of(queue)
        attempt(body, 99)
        assert only(store).state is State.FAILING
        attempt(body, 100)
        assert only(store).reason == "gave up"


def test_what_the_transport_knows_goes_before_what_is_declared(store: MemoryStore, time: Time) -> None:
    class Knowing(MemoryTransport):
        def retry_of(self, queue: str) -> RetryOptions:
            return RetryOptions(max_attempts=2 if queue == "mail" else 9)

    queues = [{"name": "mail", "retry_max_attempts": 9}]
    with in_memory(store=store, transport=Knowing(), queues=queues) as queue:
        attempt(body_of(queue), 2)
    assert only(store).reason == "gave up"


def test_a_tasks_own_options_go_before_its_queues(store: MemoryStore, time: Time) -> None:
    with in_memory(store=store, queues=[{"name": "mail", "retry_max_attempts": 2, "retry_max_duration": 50}]) as queue:
        body = body_of(queue, _retry_options={"max_attempts": 3})
        attempt(body, 2)
        assert only(store).state is State.FAILING
        time.now += 60
        attempt(body, 3)
    assert only(store).reason == "gave up"


def test_retry_options_that_a_stranger_wrote_change_nothing(queue: MemoryTransport, store: MemoryStore) -> None:
    sealed = envelope.decode(frame.unwrap(body_of(queue)))
    odd = ("{", "[]", '{"max_attempts": "x"}', '{"max_attempts": 1e400}', '{"no": 1}', "3", "null")
    for text in odd:
        wire = envelope.encode(replace(sealed, trace={retrying.HEADER: text, "traceparent": "00-1-2-3"}))
        attempt(frame.wrap(wire), 1)
    assert (store.count(State.FAILING), store.count(State.DEAD)) == (len(odd), 0)


def test_the_options_travel_beside_the_trace_and_only_where_given(queue: MemoryTransport) -> None:
    plain = envelope.decode(frame.unwrap(body_of(queue)))
    assert plain.trace == {}
    told = envelope.decode(frame.unwrap(body_of(queue, _retry_options={"max_attempts": 3, "min_backoff": 0.5})))
    assert json.loads(told.trace["defer-retry"]) == {"max_attempts": 3, "min_backoff": 0.5}


def test_the_embedded_queue_knows_its_limits(tmp_path: Path) -> None:
    from defer_local.transport import LocalTransport

    transport = LocalTransport(file=tmp_path / "queue.sqlite3")
    assert transport.retry_of("mail").max_attempts == 100
    transport.close()


def test_how_often_a_task_may_be_attempted_is_its_own_affair_then_its_queues() -> None:
    with in_memory(queues=[{"name": "mail", "retry_max_attempts": 5}, {"name": "slow", "retry_max_attempts": -1}]):
        own = RetryOptions(max_attempts=2)
        routings = [Routing(queue="mail"), Routing(queue="mail", retry=own), Routing(queue="slow"), Routing(queue="x")]
        assert [retrying.attempt_limit(each, config.current()) for each in routings] == [5, 2, None, None]
