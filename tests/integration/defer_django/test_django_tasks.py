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

from defer_core import CallableError, CallableForbiddenError, OptionError, defer
from defer_core.config import current
from defer_core.testing import MemoryTransport, drain
from defer_core.wire.describe import describe
from defer_django.models import DeferredTask

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


@pytest.mark.parametrize("name", ["wrapped", "unnamed", "first", "hidden_task"])
def test_a_task_that_its_name_does_not_lead_to_is_invalid(app: ModuleType, name: str) -> None:
    from defer_django.tasks import InvalidTask

    with pytest.raises(InvalidTask, match=r"testapp\.django_tasks\."):
        getattr(app, name).enqueue()
    assert queued() == []


def test_a_task_inside_a_class_is_invalid(app: ModuleType) -> None:
    from defer_django.tasks import InvalidTask

    with pytest.raises(InvalidTask, match="top of a module"):
        app.Holder.method.enqueue()


@pytest.mark.parametrize(
    ("name", "args", "kwargs"), [("add", (1,), {}), ("attempt", (1,), {}), ("later", (), {"a": 1})]
)
def test_arguments_that_do_not_fit_are_refused(app: ModuleType, name: str, args: Any, kwargs: Any) -> None:
    with pytest.raises(OptionError, match=f"does not fit testapp.django_tasks:{name}"):
        getattr(app, name).enqueue(*args, **kwargs)
    assert queued() == []
    if name != "attempt":
        with pytest.raises(OptionError, match=f"does not fit testapp.django_tasks:{name}"):
            defer(getattr(app, name), *args, **kwargs)


def test_what_was_a_task_and_is_a_plain_function_after_a_deploy_is_dead(
    app: ModuleType, calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    app.add.enqueue(1, 2)
    defer(app.add, 3, 4)
    monkeypatch.setattr(app, "add", app.add.func)
    assert drain().done == 1
    assert calls == [("add", 3, 4)]
    [letter] = DeferredTask.objects.filter(state="dead")
    assert "testapp.django_tasks:add is not a task any more" in letter.last_error


def test_a_plain_function_that_becomes_a_task_runs(
    app: ModuleType, calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    defer(app.plain, 1)
    monkeypatch.setattr(app, "plain", app.wrapped)
    drain()
    assert calls == [("plain", 1)]


@pytest.mark.parametrize(
    ("what", "status"),
    [
        ("none", "SUCCESSFUL"),
        ("tuple", "SUCCESSFUL"),
        ("object", "FAILED"),
        ("deep", "FAILED"),
        ("generator", "FAILED"),
    ],
)
def test_a_result_that_is_no_json_has_failed_once(
    app: ModuleType, calls: list[Any], signals: list[Any], what: str, status: str
) -> None:
    app.give.enqueue(what)
    drain()
    assert calls == [("give", what)]
    assert signals[-1] == ("task_finished", status)


def test_a_dead_letter_is_labelled_as_the_task(app: ModuleType) -> None:
    app.refuse.enqueue()
    drain()
    letter = DeferredTask.objects.get(state="dead")
    assert letter.label == "testapp.django_tasks:refuse"
    assert describe(letter.to_record(), current()) == "testapp.django_tasks.refuse()"
    app.log_in.enqueue("ada", "s3cret")
    drain()
    [letter] = [each for each in DeferredTask.objects.filter(state="dead") if each.label.endswith(":log_in")]
    assert describe(letter.to_record(), current()) == "testapp.django_tasks.log_in(user='ada', password=••••••)"
    with transaction.atomic():
        app.add.enqueue(1, 2)
    [waiting] = [each for each in DeferredTask.objects.filter(state="pending") if each.label.endswith(":add")]
    assert describe(waiting.to_record(), current()) == "testapp.django_tasks.add(a=1, b=2)"
