"""Uptime checks of a Django site."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connections
from django.test import Client, override_settings
from django.urls import include, path

from defer_core.spi import State, TaskRecord, clock, new_id
from defer_django.models import DeferredTask

urlpatterns = [path("defer/", include("defer_django.urls"))]
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls(__name__)]


@pytest.fixture(autouse=True)
def site() -> Iterator[None]:
    with override_settings(DEFER={"TRANSPORT": "memory", "HEALTH_LATE": 300}):
        yield


def get() -> Any:
    return Client().get("/defer/health")


def a_letter() -> None:
    record = TaskRecord(id=new_id(), envelope=b"", state=State.DEAD, last_attempt=clock.now(), created=clock.now())
    DeferredTask.from_record(record).save()


def test_a_healthy_site_answers_200() -> None:
    answer = get()
    assert (answer.status_code, answer.json()) == (200, {"healthy": True, "reasons": []})
    assert "no-store" in answer["Cache-Control"]


def test_a_site_with_a_dead_letter_answers_503_with_the_reason() -> None:
    a_letter()
    answer = get()
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["The store django default has 1 dead letter of the last 24 hours."]


def test_a_sick_site_does_not_mail_its_admins_at_each_check(caplog: pytest.LogCaptureFixture) -> None:
    a_letter()
    assert get().status_code == 503
    assert [each.name for each in caplog.records if each.name.startswith("django")] == []


@override_settings(
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"],
    ALLOWED_HOSTS=["shop.example"],
    SECURE_SSL_REDIRECT=True,
    SECURE_REDIRECT_EXEMPT=[r"^defer/health$"],
)
def test_a_load_balancer_is_answered_if_it_asks_for_a_host_that_is_allowed() -> None:
    assert Client().get("/defer/health", headers={"host": "10.0.0.7"}).status_code == 400
    assert Client().get("/defer/health", headers={"host": "shop.example"}).status_code == 200


def test_a_setting_says_how_long_a_record_may_wait() -> None:
    record = TaskRecord(id=new_id(), envelope=b"", created=clock.now() - 301, due=clock.now())
    DeferredTask.from_record(record).save()
    assert get().status_code == 503


def test_without_a_database_it_answers_503_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise DatabaseError("password authentication failed for user hunter2")

    monkeypatch.setattr("defer_django.store.DjangoTaskStore.oldest_pending", refuse)
    answer = get()
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["The store django default cannot be read: DatabaseError."]


@pytest.mark.parametrize("alias", ["default", "other"])
def test_no_transaction_is_opened_for_it(monkeypatch: pytest.MonkeyPatch, alias: str) -> None:
    """ATOMIC_REQUESTS would open one before the view is called, and answer 500 where there is no database."""
    monkeypatch.setitem(connections[alias].settings_dict, "ATOMIC_REQUESTS", True)
    opened: list[str] = []
    monkeypatch.setattr("django.core.handlers.base.transaction.atomic", lambda using: opened.append(using))
    assert get().status_code == 200
    assert opened == []


SITE = """
import io, sys, types
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="k" * 50, USE_TZ=True, ROOT_URLCONF="site_urls", ALLOWED_HOSTS=["*"], DEFER={"TRANSPORT": "memory"},
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions", "defer_django"],
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.contrib.sessions.middleware.SessionMiddleware",
                "django.contrib.auth.middleware.AuthenticationMiddleware"],
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "shop", "HOST": "127.0.0.1", "PORT": 1,
                           "USER": "shop", "PASSWORD": "hunter2", "ATOMIC_REQUESTS": True}})
django.setup()
from django.urls import include, path
sys.modules["site_urls"] = types.SimpleNamespace(urlpatterns=[path("", include("defer_django.urls"))])
from django.core.wsgi import get_wsgi_application
environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/health", "SERVER_NAME": "s", "SERVER_PORT": "80",
           "wsgi.input": io.BytesIO()}
answer = get_wsgi_application()(environ, lambda status, headers: print(status))
print(b"".join(answer).decode())
from django.core.management import call_command
call_command("defer_health", "--json")
"""


def test_a_real_site_whose_database_is_down_answers_503_and_so_does_the_command() -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO", "DEFER"))}
    done = subprocess.run([sys.executable, "-c", SITE], capture_output=True, text=True, env=environ, check=False)
    status, body, said = done.stdout.splitlines()
    assert (done.returncode, status) == (1, "503 Service Unavailable"), done.stderr
    assert json.loads(body) == json.loads(said)
    assert json.loads(body)["reasons"] == ["The store django default cannot be read: OperationalError."]


def test_only_reading_is_allowed() -> None:
    assert Client().head("/defer/health").status_code == 200
    assert Client().post("/defer/health").status_code == 405


def test_the_command_ends_with_1_and_the_reasons() -> None:
    out = io.StringIO()
    call_command("defer_health", stdout=out)
    assert out.getvalue() == "healthy\n"
    a_letter()
    with pytest.raises(SystemExit) as ended:
        call_command("defer_health", stdout=out)
    assert ended.value.code == 1 and "1 dead letter" in out.getvalue()
    call_command("defer_health", "--dead", "1", stdout=out)
