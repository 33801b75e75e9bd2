"""`django.tasks` on our queue."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from datetime import timedelta
from types import ModuleType
from typing import Any

import django
import pytest
from django.db import transaction
from django.test import override_settings
from django.utils import timezone

from defer_core import CallableError, CallableForbiddenError, defer
from defer_core.config import current
from defer_core.testing import MemoryTransport, drain

if django.VERSION < (6, 0):
    pytest.importorskip("django_tasks")

pytestmark = pytest.mark.django_db(transaction=True)
BACKEND = {"BACKEND": "defer_django.tasks.DeferBackend", "QUEUES": ["default", "mail"]}


@pytest.fixture
def app() -> Iterator[ModuleType]:
    """The tasks of the test app, on our backend."""
    with override_settings(TASKS={"default": BACKEND}):
        yield importlib.import_module("testapp.django_tasks")


@pytest.fixture
def signals(app: ModuleType) -> Iterator[list[tuple[str, Any]]]:
    """What the signals of tasks told: their names and the status of the result."""
    from defer_django import tasks

    heard: list[tuple[str, Any]] = []
    receivers = {
        name: lambda sender, task_result, _name=name, **kwargs: heard.append((_name, str(task_result.status)))
        for name in ("task_enqueued", "task_started", "task_finished")
    }
    for name, receiver in receivers.items():
        getattr(tasks, name).connect(receiver)
    yield heard
    for name, receiver in receivers.items():
        getattr(tasks, name).disconnect(receiver)


def queued() -> list[Any]:
    transport = current().the_transport
    assert isinstance(transport, MemoryTransport)
    return transport.queued()


def test_a_task_runs_and_its_signals_tell(app: ModuleType, calls: list[Any], signals: list[Any]) -> None:
    result = app.add.enqueue(1, b=2)
    assert result.id
    assert signals == [("task_enqueued", "READY")]
    drain()
    assert calls == [("add", 1, 2)]
    assert signals[1:] == [("task_started", "RUNNING"), ("task_finished", "SUCCESSFUL")]


def test_it_is_enqueued_on_commit_and_not_on_rollback(app: ModuleType, calls: list[Any]) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        app.add.enqueue(1, 1)
        raise RuntimeError
    with transaction.atomic():
        app.add.enqueue(2, 2)
        assert queued() == []
    drain()
    assert calls == [("add", 2, 2)]


def test_options_are_those_of_defer(app: ModuleType) -> None:
    with override_settings(TASKS={"default": {**BACKEND, "OPTIONS": {"transactional": False}}}):
        with transaction.atomic():
            app.add.enqueue(1, 1)
            assert len(queued()) == 1
    with override_settings(TASKS={"default": {**BACKEND, "OPTIONS": {"usin": "default"}}}):
        with pytest.raises(ValueError, match="usin"):
            app.add.enqueue(1, 1)


def test_an_attempt_is_counted_and_an_exception_retried(app: ModuleType, calls: list[Any], signals: list[Any]) -> None:
    app.attempt.enqueue()
    assert queued()[0].message.routing.queue == "mail"
    drain()
    assert calls == [("attempt", 1), ("attempt", 2)]
    assert [name for name, _ in signals].count("task_finished") == 1


def test_run_after_is_the_eta(app: ModuleType) -> None:
    when = timezone.now() + timedelta(hours=1)
    app.add.using(run_after=when).enqueue(1, 1)
    assert queued()[0].message.routing.eta == when.timestamp()


def test_coroutines_run(app: ModuleType, calls: list[Any]) -> None:
    app.later.enqueue()
    drain()
    assert calls == [("later",)]


def test_a_permanent_failure_finishes_it(app: ModuleType, signals: list[Any]) -> None:
    app.refuse.enqueue()
    drain()
    assert signals[-1] == ("task_finished", "FAILED")


def test_arguments_that_are_no_json_are_refused(app: ModuleType) -> None:
    with pytest.raises(TypeError):
        app.add.enqueue(object(), 1)
    assert queued() == []


def test_a_task_can_be_deferred_like_any_callable(app: ModuleType, calls: list[Any]) -> None:
    defer(app.add, 1, b=2)
    defer(app.later)
    drain()
    assert [each[0] for each in calls] == ["add", "later"]


def test_a_task_that_only_its_backend_can_run_is_refused(app: ModuleType) -> None:
    with pytest.raises(CallableError, match="enqueue"):
        defer(app.attempt)
    with pytest.raises(CallableError, match="does not lead back"):
        defer(app.add.using(queue_name="mail"))


def test_an_allow_list_holds_for_the_task_and_not_for_what_runs_it(app: ModuleType, calls: list[Any]) -> None:
    with override_settings(DEFER={"TRANSPORT": "memory", "CALLABLES": ["testapp.*"]}):
        app.add.enqueue(1, 2)
        drain()
    assert [each[0] for each in calls] == ["add"]
    with override_settings(DEFER={"TRANSPORT": "memory", "CALLABLES": ["shop.*"]}):
        with pytest.raises(CallableForbiddenError, match=r"testapp\.django_tasks:add"):
            app.add.enqueue(1, 2)
