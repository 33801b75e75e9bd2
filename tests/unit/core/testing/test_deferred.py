"""What a test has deferred: compared, listed and run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest import mock

import pytest

from defer_core import ConfigError, SingularTaskFailure, current_delivery, defer, defer_many
from defer_core.config import configured
from defer_core.testing.deferred import Deferred

LARGE = random.Random(0).randbytes(300_000)
ran: list[Any] = []


def ship(order: object, fast: bool = False) -> None:
    ran.append((order, fast))


def ship_two() -> None:
    defer(ship, 1)
    defer(ship, 2)


def poll() -> None:
    raise SingularTaskFailure("not yet")


def fail() -> None:
    ran.append(current_delivery())
    raise ValueError("no lines")


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    """Nothing has run, and nothing is configured."""
    ran.clear()
    with configured():
        yield


def test_arguments_are_compared_as_the_function_gets_them(deferred: Deferred) -> None:
    defer(ship, 17, fast=True, _queue="mail", _countdown=60)
    soon = datetime.now(timezone.utc) + timedelta(seconds=60)
    for wanted in (
        {},
        {"args": [17]},
        {"args": [17, True], "kwargs": {}},
        {"args": [], "kwargs": {"order": 17, "fast": True}},
        {"kwargs": {"order": 17, "fast": True}},
        {"kwargs": {"fast": True}},
        {"args": [mock.ANY], "kwargs": {"fast": mock.ANY}},
        {"queue": "mail", "name": mock.ANY, "eta": mock.ANY, "times": 1},
    ):
        task = deferred.assert_called(ship, **wanted)
        assert (task.func, task.args, task.kwargs, task.queue) == (ship, (17,), {"fast": True}, "mail")
        assert task.eta is not None and abs(task.eta - soon) < timedelta(seconds=30)
    for wrong in ({"args": [18]}, {"kwargs": {"fast": False}}, {"queue": "default"}, {"eta": None}, {"times": 2}):
        with pytest.raises(AssertionError, match="ship was not deferred"):
            deferred.assert_called(ship, **wrong)  # type: ignore[arg-type]


def test_a_failure_says_what_there_is(deferred: Deferred) -> None:
    with pytest.raises(AssertionError) as caught:
        deferred.assert_called(ship)
    assert str(caught.value) == "ship was not deferred. There is nothing."
    defer(ship, 1)
    with pytest.raises(AssertionError) as caught:
        deferred.assert_called(ship, args=[2], times=1)
    assert str(caught.value) == (
        "ship was not deferred 1 times, but 0 with args=[2]. There is:\n  ship(1)  [queue='default']"
    )
    with pytest.raises(AssertionError, match="ship was deferred"):
        deferred.assert_not_called(ship)
    with pytest.raises(AssertionError, match="Something was deferred"):
        deferred.assert_not_called()
    deferred.assert_not_called(fail)


def test_it_is_a_sequence(deferred: Deferred) -> None:
    assert not deferred
    defer(ship, "later", _countdown=60)
    defer(ship, "now")
    assert [task.args for task in deferred] == [("now",), ("later",)]
    assert (len(deferred), deferred[0].args, deferred[-1].args) == (2, ("now",), ("later",))
    deferred.clear()
    assert list(deferred) == []


def test_running_one_function_runs_what_it_defers_and_no_other(deferred: Deferred) -> None:
    defer(ship, "spared")
    defer(ship_two)
    assert deferred.run(ship_two) == 3
    assert ran == [(1, False), (2, False)]
    assert deferred[0].args == ("spared",)
    assert deferred.run(queue="mail") == 0
    assert deferred.run() == 1


@pytest.mark.parametrize(("func", "error"), [(fail, ValueError), (poll, SingularTaskFailure)])
def test_the_first_failure_is_raised(deferred: Deferred, func: Any, error: type[Exception]) -> None:
    defer(func)
    with pytest.raises(error):
        deferred.run()
    assert list(deferred) == []
    defer(fail)
    with pytest.raises(ValueError, match="no lines"):
        deferred.run(max_attempts=3)
    assert [delivery.retry_count for delivery in ran[-3:]] == [0, 1, 2]


def test_eager_tasks_run_in_the_call_that_defers_them(deferred: Deferred) -> None:
    with deferred.eager():
        defer(ship_two)
        assert ran == [(1, False), (2, False)]
        defer_many(ship, [(3,), (LARGE,)])
        assert ran[2:] == [(3, False), (LARGE, False)]
        for func, error in ((fail, ValueError), (poll, SingularTaskFailure)):
            with pytest.raises(error):
                defer(func)
    defer(ship, "afterwards")
    assert [task.args for task in deferred] == [("afterwards",)]


def test_it_needs_a_memory_queue() -> None:
    with configured(transport="immediate"), pytest.raises(ConfigError, match="the transport is 'immediate'"):
        len(Deferred())
