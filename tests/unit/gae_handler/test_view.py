"""The Django view."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connections
from django.test import Client, RequestFactory
from django.urls import reverse
from unit.gae_handler.handled import body_of, calls, crash, fail_once, note

from defer_core import LoggedOnce, defer
from defer_core.testing import MemoryTransport
from defer_gae_handler.django.views import deferred_handler

QUEUE = {"HTTP_X_APPENGINE_QUEUENAME": "default", "HTTP_X_APPENGINE_TASKNAME": "t-1"}
OCTETS = "application/octet-stream"


@pytest.fixture
def url() -> str:
    return reverse("tasks_deferred_handler")


@pytest.fixture
def client() -> Client:
    """With Django's check of CSRF tokens on."""
    return Client(enforce_csrf_checks=True, raise_request_exception=False)


pytestmark = pytest.mark.usefixtures("app_engine")


def test_a_task_is_run_and_answered(client: Client, url: str, queue: MemoryTransport) -> None:
    assert url == "/_ah/queue/deferred"
    defer(note, 1)
    answer = client.post(url, body_of(queue), content_type=OCTETS, **QUEUE)
    assert (answer.status_code, answer.content, calls) == (200, b"done", [(1,)])


def test_failures_are_answered_and_reported(client: Client, url: str, queue: MemoryTransport) -> None:
    defer(fail_once)
    assert client.post(url, body_of(queue), content_type=OCTETS, **QUEUE).status_code == 408
    queue.clear()
    defer(crash)
    answer = client.post(url, body_of(queue), content_type=OCTETS, **QUEUE)
    assert answer.status_code == 500
    assert answer.exc_info[0] is ZeroDivisionError  # type: ignore[attr-defined]


def test_django_says_nothing_of_what_has_its_line(
    client: Client, url: str, queue: MemoryTransport, caplog: pytest.LogCaptureFixture
) -> None:
    defer(fail_once)
    assert client.post(url, body_of(queue), content_type=OCTETS, **QUEUE).status_code == 408
    assert client.post(url, b"x", content_type=OCTETS).status_code == 403
    assert [each.name for each in caplog.records] == ["defer", "defer.handler"]
    client.get(url, **QUEUE)
    assert caplog.records[-1].name == "django.request"


@pytest.mark.parametrize(("debug", "kept"), [(False, ["defer"]), (True, ["defer", "django.request"])])
def test_a_task_that_raises_is_one_line_where_the_filter_is(
    client: Client, url: str, queue: MemoryTransport, caplog: pytest.LogCaptureFixture, settings: Any, debug: bool,
    kept: list[str],
) -> None:  # fmt: skip
    """With DEBUG its traceback is left to Django."""
    settings.DEBUG = debug
    defer(crash)
    assert client.post(url, body_of(queue), content_type=OCTETS, **QUEUE).status_code == 500
    assert [each.name for each in caplog.records] == ["defer", "django.request"]
    assert [each.name for each in caplog.records if LoggedOnce().filter(each)] == kept


def test_strangers_and_other_methods(client: Client, url: str, queue: MemoryTransport) -> None:
    assert client.post(url, b"x", content_type=OCTETS).status_code == 403
    answer = client.get(url, **QUEUE)
    assert (answer.status_code, answer["Allow"]) == (405, "POST")


def test_nobody_has_to_log_in(url: str, queue: MemoryTransport, settings: Any) -> None:
    login = "django.contrib.auth.middleware.LoginRequiredMiddleware"
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, login]
    defer(note)
    assert Client().post(url, body_of(queue), content_type=OCTETS, **QUEUE).status_code == 200


def test_it_is_outside_of_atomic_requests_on_every_alias() -> None:
    assert deferred_handler._non_atomic_requests == set(connections)  # type: ignore[attr-defined]
    assert len(set(connections)) > 1


@pytest.mark.parametrize("alias", ["default", "other"])
def test_no_transaction_is_open_under_atomic_requests(
    client: Client, url: str, queue: MemoryTransport, monkeypatch: pytest.MonkeyPatch, alias: str
) -> None:
    monkeypatch.setitem(connections[alias].settings_dict, "ATOMIC_REQUESTS", True)
    entered = []
    monkeypatch.setattr("django.db.transaction.Atomic.__enter__", lambda self: entered.append(self.using))
    defer(note)
    assert client.post(url, body_of(queue), content_type=OCTETS, **QUEUE).status_code == 200
    assert entered == []


def test_the_view_reads_a_body_that_a_middleware_has_read(queue: MemoryTransport) -> None:
    defer(note)
    request = RequestFactory().post("/", body_of(queue), content_type=OCTETS, **QUEUE)
    assert request.body
    assert deferred_handler(request).status_code == 200
