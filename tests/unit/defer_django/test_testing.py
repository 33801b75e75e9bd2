"""What a Django test has in the place of a queue: here under pytest-django; under Django's runner, see `outside`."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from typing import Any

import django
import pytest
from django.core import mail
from django.db import connections, transaction
from django.test import TestCase, override_settings
from django.test.utils import CaptureQueriesContext
from testapp.iterations import all_rows
from testapp.models import Row
from testapp.tasks import fail, record

from defer_core import Status, config, defer, defer_many
from defer_core.config import active
from defer_core.spi import current, sweep
from defer_core.testing import Deferred, drain, in_memory
from defer_django import testing
from defer_django.apps import _isolate
from defer_iteration import defer_iteration_with_finalize

LARGE = random.Random(0).randbytes(300_000)


@pytest.fixture
def django_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As under Django's runner, where pytest has laid nothing over the configuration."""
    monkeypatch.setattr(active, "_layers", [_isolate])
    with override_settings(DEFER={"TRANSPORT": "cloud"}):
        yield


@pytest.mark.usefixtures("django_alone")
def test_a_new_outbox_is_a_new_test(monkeypatch: pytest.MonkeyPatch) -> None:
    defer(record, 1)
    assert len(Deferred()) == 1
    monkeypatch.setattr(mail, "outbox", [])
    assert len(Deferred()) == 0


@pytest.mark.usefixtures("django_alone")
def test_a_project_may_turn_it_off_and_another_environment_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with override_settings(DEFER={"TRANSPORT": "cloud", "ISOLATE_TESTS": False}):
        assert current() is config.as_configured()
    assert current() is not config.as_configured()
    monkeypatch.setattr(testing, "in_tests", lambda: False)
    assert current() is config.as_configured()


@pytest.mark.django_db
def test_in_a_test_case_tasks_are_queued_as_commits_would_have_it(deferred: Deferred, calls: list[Any]) -> None:
    with transaction.atomic():
        handle = defer(record, "kept")
        with pytest.raises(KeyError), transaction.atomic():
            defer(record, "never")
            defer_many(record, [("nor",), (LARGE,)])
            raise KeyError
        with transaction.atomic():
            defer_many(record, [("second",), (LARGE,)])
        assert list(deferred) == [] and handle.status is Status.WAITS_FOR_COMMIT
    assert [task.args for task in deferred] == [("kept",), ("second",), (LARGE,)]
    assert handle.status is Status.SENT
    assert drain().done == 3
    assert calls == [("kept",), ("second",), (LARGE,)]


@pytest.mark.django_db
@pytest.mark.parametrize("durable", [False, True])
def test_captured_callbacks_send_no_second_one(
    deferred: Deferred, durable: bool, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True) as callbacks:
        with transaction.atomic(durable=durable):
            defer(record, 1)
        assert len(deferred) == 1  # the test has looked before
    assert len(callbacks) == 1
    assert deferred.run() == 1


@pytest.mark.django_db
@override_settings(DEFER={"TRANSPORT": "memory", "SWEEP_INTERVAL": 0})
def test_our_own_deletes_are_no_callbacks_of_the_project(django_capture_on_commit_callbacks: Any) -> None:
    with django_capture_on_commit_callbacks() as callbacks:
        for number in range(25):  # of which some carry the deletes of others
            defer(record, number)
    assert callbacks == []


@pytest.mark.django_db
def test_an_iteration_runs_in_a_test_case(deferred: Deferred, calls: list[Any]) -> None:
    Row.objects.bulk_create(Row() for _ in range(10))
    with transaction.atomic():
        defer_iteration_with_finalize(all_rows, record, record, _shards=2)
    deferred.run()
    assert (len(calls), list(deferred)) == (11, [])


@pytest.mark.django_db
def test_a_task_of_django_s_is_asked_for_by_itself(deferred: Deferred) -> None:
    backend = {"default": {"BACKEND": "defer_django.tasks.DeferBackend", "QUEUES": ["default", "mail"]}}
    if django.VERSION < (6, 0):
        pytest.importorskip("django_tasks")
    with override_settings(TASKS=backend):
        from testapp import django_tasks

        django_tasks.add.enqueue(1, b=2)
        deferred.assert_called(django_tasks.add, args=[1, 2], times=1)
        deferred.assert_called(django_tasks.add.using(queue_name="mail"), kwargs={"a": 1, "b": 2})
        deferred.assert_not_called(django_tasks.refuse)
        assert repr(deferred[0]) == "add(1, b=2)  [queue='default']"
        assert deferred.run(django_tasks.add) == 1


@pytest.mark.django_db
def test_in_memory_follows_django_s_transactions(calls: list[Any]) -> None:
    with in_memory() as queue:
        with pytest.raises(KeyError), transaction.atomic():
            defer(record, "never")
            defer_many(record, [("nor",), (LARGE,)])
            with transaction.atomic():
                defer(record, "nor this")
            raise KeyError
        with transaction.atomic():
            defer_many(record, [("kept",), (LARGE,)])
            assert queue.queued() == []
        assert drain().done == 2
    assert calls == [("kept",), (LARGE,)]


def test_without_a_database_a_task_is_deferred_and_swept(caplog: pytest.LogCaptureFixture) -> None:
    for settings in ({"TRANSPORT": "cloud"}, {"TRANSPORT": "local"}, None):
        with override_settings(DEFER=settings), caplog.at_level(logging.ERROR):
            defer(record, 1)
            assert drain().done == 1
            assert sweep().counts["failed"] == 0
    assert caplog.records == []


class OneOfTwo(TestCase):
    """A test that may use one of the project's databases."""

    databases = frozenset({"default"})

    def test_the_sweep_uses_that_one(self) -> None:
        with override_settings(DEFER={"TRANSPORT": "memory"}), self.assertNoLogs("defer", "ERROR"):
            with CaptureQueriesContext(connections["default"]) as queries:
                report = sweep()
        assert report.counts["failed"] == 0
        assert any("defer_django_deferredtask" in query["sql"] for query in queries)
        assert [store.alias for store in current().every_store()] == ["default"]


@pytest.mark.django_db(transaction=True)
@override_settings(DEFER={"TRANSPORT": "immediate", "SWEEP_INTERVAL": 0})
def test_under_immediate_the_error_of_a_task_reaches_whoever_commits(calls: list[Any]) -> None:
    for call in (lambda: defer(fail, "no lines"), lambda: defer_many(fail, [("no lines",)])):
        with pytest.raises(ValueError, match="no lines"):
            call()
        with pytest.raises(ValueError, match="no lines"), transaction.atomic():
            call()
        with pytest.raises(ValueError, match="no lines"), transaction.atomic(), transaction.atomic():
            call()
    with transaction.atomic():
        defer(record, "at its commit")
        assert calls == []
    assert calls == [("at its commit",)]
