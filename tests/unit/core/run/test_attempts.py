"""Observers are told of each attempt that ends, once, and disturb nothing."""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from defer_core import Delivery, Outcome, PermanentTaskFailure, RetryOptions, SingularTaskFailure, clock, defer, execute
from defer_core.errors import CallableForbiddenError, DecodeError, TaskExitedError, UnknownKeyError
from defer_core.run import attempts, stopping
from defer_core.run.attempts import Attempt, Ending
from defer_core.stores.memory import MemoryStore
from defer_core.testing import MemoryTransport, in_memory

NOW = 1_800_000_000.0
HERE = f"{__name__}:"
seen: list[Attempt] = []
time = [NOW]


def takes_a_while(seconds: float, error: BaseException | None = None) -> None:
    time[0] += seconds
    if error is not None:
        raise error


def leaves() -> None:
    sys.exit(3)


def looks_after_itself() -> None:
    raise ValueError


vars(looks_after_itself)["sees_to_itself"] = True


@pytest.fixture(autouse=True)
def _at_a_settable_time() -> Iterator[None]:
    time[0] = NOW
    with clock.replaced(lambda: time[0]):
        yield


@pytest.fixture(autouse=True)
def _observed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen.clear()
    monkeypatch.setattr(attempts, "_observers", {})
    attempts.register_observer("test", seen.append)


@pytest.fixture
def queue() -> Iterator[MemoryTransport]:
    with in_memory(store=MemoryStore(), keys=["current"], forbidden_callables=["os.*"]) as transport:
        yield transport


def body_of(queue: MemoryTransport, func: Callable[..., Any], *args: Any, **options: Any) -> bytes:
    defer(func, *args, **options)
    body = queue.queued()[-1].message.body
    queue.clear()
    return body


def delivery(retries: int = 0, eta: float | None = None) -> Delivery:
    return Delivery(task_name="t", queue="q", retry_count=retries, started=time[0], eta=eta)


def test_a_success_is_told_with_what_is_known_of_it(queue: MemoryTransport) -> None:
    attempt = delivery()
    execute(body_of(queue, takes_a_while, 2.5), attempt)
    label = f"{HERE}takes_a_while"
    assert seen == [Attempt(delivery=attempt, ending=Ending.DONE, label=label, due=NOW, duration=2.5)]


def test_it_was_due_at_its_eta_if_it_had_one(queue: MemoryTransport) -> None:
    execute(body_of(queue, takes_a_while, 0.0), delivery(eta=NOW - 7))
    assert [each.due for each in seen] == [NOW - 7]


@pytest.mark.parametrize(
    ("error", "retries", "ending"),
    [
        (ValueError("no"), 0, Ending.FAILED),
        (ValueError("no"), 1, Ending.DEAD),
        (SingularTaskFailure("later"), 0, Ending.RETRY),
        (SingularTaskFailure("later"), 1, Ending.DEAD),
        (PermanentTaskFailure("never"), 0, Ending.DEAD),
    ],
)
def test_a_failure_is_told_with_its_error(
    queue: MemoryTransport, error: Exception, retries: int, ending: Ending
) -> None:
    body = body_of(queue, takes_a_while, 4.0, error, _retry_options=RetryOptions(max_attempts=2))
    try:
        execute(body, delivery(retries))
    except ValueError:
        assert type(error) is ValueError
    assert [(each.ending, each.duration, type(each.error)) for each in seen] == [(ending, 4.0, type(error))]


def test_an_exit_is_a_failure_unless_the_process_ends(queue: MemoryTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    body = body_of(queue, leaves)
    with pytest.raises(TaskExitedError):
        execute(body, delivery())
    monkeypatch.setattr(stopping, "asked", [15])
    with pytest.raises(SystemExit):
        execute(body, delivery())
    assert [(each.ending, type(each.error)) for each in seen] == [
        (Ending.FAILED, TaskExitedError),
        (Ending.RETRY, SystemExit),
    ]


def test_a_task_of_an_iteration_is_never_dead(queue: MemoryTransport) -> None:
    body = body_of(queue, looks_after_itself, _retry_options=RetryOptions(max_attempts=1))
    with pytest.raises(ValueError):
        execute(body, delivery())
    assert [each.ending for each in seen] == [Ending.FAILED]


def test_what_cannot_be_read_has_no_label(queue: MemoryTransport) -> None:
    forbidden = body_of(queue, takes_a_while, 0.0)
    with in_memory(store=MemoryStore(), keys=["current"], callables=["shop.*"]):
        assert execute(forbidden, delivery()) is Outcome.PERMANENT
    with in_memory(store=MemoryStore(), keys=["another"]):
        assert execute(forbidden, delivery()) is Outcome.RETRY
        time[0] += 3601.0
        assert execute(forbidden, delivery()) is Outcome.PERMANENT
    assert execute(b"nonsense", delivery()) is Outcome.PERMANENT
    assert [(each.ending, each.label, type(each.error)) for each in seen] == [
        (Ending.DEAD, "", CallableForbiddenError),
        (Ending.RETRY, "", UnknownKeyError),
        (Ending.DEAD, "", UnknownKeyError),
        (Ending.DEAD, "", DecodeError),
    ]


def test_a_task_that_was_done_before_is_told_as_done(queue: MemoryTransport) -> None:
    body = body_of(queue, len, random.Random(1).randbytes(200_000))  # which no compression makes inline
    assert execute(body, delivery()) is Outcome.DONE
    time[0] += 3601.0
    assert execute(body, delivery(1)) is Outcome.DONE
    assert [(each.ending, each.label) for each in seen] == [(Ending.DONE, "builtins:len"), (Ending.DONE, "")]


def test_an_observer_that_raises_is_logged_and_disturbs_nothing(
    queue: MemoryTransport, caplog: pytest.LogCaptureFixture
) -> None:
    def raises(attempt: Attempt) -> None:
        raise RuntimeError("the counter is broken")

    attempts.register_observer("test", raises)
    attempts.register_observer("another", seen.append)
    with caplog.at_level(logging.ERROR, "defer"):
        assert execute(body_of(queue, takes_a_while, 0.0), delivery()) is Outcome.DONE
    assert [each.ending for each in seen] == [Ending.DONE]
    assert "The observer 'test' failed at an attempt that has ended (done)." in caplog.text


def test_a_clock_that_is_set_back_gives_no_negative_duration(queue: MemoryTransport) -> None:
    execute(body_of(queue, takes_a_while, -60.0), delivery())
    assert [each.duration for each in seen] == [0.0]
