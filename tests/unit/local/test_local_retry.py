"""The rules of repetition of Cloud Tasks."""

from __future__ import annotations

import pytest

from defer_core.spi import RetryOptions, Routing
from defer_local.queued import QueuedTask
from defer_local.retry import DEFAULTS, absent, failed, gives_up, interrupted, interval, merged


def a_task(**fields: object) -> QueuedTask:
    return QueuedTask(**{"queue": "default", "name": "t", "attempts": 1, "first_attempt": 100.0, **fields})  # type: ignore[arg-type]


def test_the_wait_doubles_then_grows_linearly_up_to_the_longest() -> None:
    retry = RetryOptions(min_backoff=10.0, max_backoff=300.0, max_doublings=3)
    assert [interval(retry, n) for n in range(1, 9)] == [10, 20, 40, 80, 160, 240, 300, 300]


def test_the_defaults_are_those_of_cloud_tasks() -> None:
    assert [interval(DEFAULTS, n) for n in (1, 2, 3, 17, 99)] == pytest.approx([0.1, 0.2, 0.4, 3600, 3600])
    assert DEFAULTS.max_attempts == 100


def test_any_number_of_doublings_is_no_overflow() -> None:
    retry = RetryOptions(min_backoff=1.0, max_backoff=50.0, max_doublings=10**6)
    assert interval(retry, 10**6) == 50.0


def test_a_task_keeps_what_it_says_and_takes_the_rest_from_its_queue() -> None:
    assert merged(RetryOptions(max_attempts=3), DEFAULTS) == RetryOptions(
        max_attempts=3, max_retry_duration=0.0, min_backoff=0.1, max_backoff=3600.0, max_doublings=16
    )


@pytest.mark.parametrize(
    "retry, attempts, age, given_up",
    [
        (RetryOptions(max_attempts=3), 2, 1e6, False),
        (RetryOptions(max_attempts=3), 3, 0, True),
        (RetryOptions(max_attempts=-1), 10**6, 1e6, False),
        (RetryOptions(max_attempts=3, max_retry_duration=60.0), 3, 59, False),
        (RetryOptions(max_attempts=3, max_retry_duration=60.0), 2, 61, False),
        (RetryOptions(max_attempts=3, max_retry_duration=60.0), 3, 60, True),
        (RetryOptions(max_attempts=-1, max_retry_duration=60.0), 1, 60, True),
    ],
)
def test_the_queue_gives_up_once_every_limit_is_reached(
    retry: RetryOptions, attempts: int, age: float, given_up: bool
) -> None:
    assert gives_up(a_task(attempts=attempts), retry, 100.0 + age) is given_up


def test_the_last_attempt_leaves_nothing() -> None:
    task = a_task(attempts=2, routing=Routing(retry=RetryOptions(max_attempts=2)))
    assert failed(task, 500, 200.0) is None


def test_what_a_dead_dispatcher_interrupted_is_tried_again_even_at_its_last_attempt() -> None:
    task = a_task(attempts=1, owner="gone", routing=Routing(retry=RetryOptions(max_attempts=1)))
    again = interrupted(task, 200.0)
    assert (again.owner, again.due, again.attempts, again.previous_response) == (None, 200.0, 1, 0)


def test_a_server_that_is_not_there_is_no_attempt() -> None:
    again = absent(a_task(attempts=1, owner="me"), 200.0)
    assert (again.owner, again.attempts, again.due > 200.0, again.previous_response) == (None, 0, True, None)
