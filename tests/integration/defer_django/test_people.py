"""What an operator has: the admin and the commands."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.test import Client
from django.urls import reverse
from testapp import tasks

from defer_core import PermanentTaskFailure, defer
from defer_core.config import current
from defer_core.record import State, TaskRecord, new_id
from defer_core.testing import MemoryTransport, drain
from defer_django.models import DeferredTask
from defer_django.store import DjangoTaskStore
from defer_django.stores import task_store

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])
CHANGELIST = "admin:defer_django_deferredtask_changelist"


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch, calls: list[Any]) -> DeferredTask:
    """A dead letter, of a task that would succeed now."""

    def refuse(*args: Any) -> None:
        raise PermanentTaskFailure("the shop is closed")

    defer(tasks.record, 1)
    with monkeypatch.context() as patched:
        patched.setattr(tasks.record, "__code__", refuse.__code__)
        patched.setitem(tasks.__dict__, "PermanentTaskFailure", PermanentTaskFailure)
        drain()
    assert calls == []
    return DeferredTask.objects.get(state=State.DEAD)


@pytest.fixture
def admin(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("root"))
    return client


def run(*command: str) -> str:
    out = StringIO()
    call_command(*command, stdout=out)
    return out.getvalue()


def queued() -> int:
    transport = current().the_transport
    assert isinstance(transport, MemoryTransport)
    return len(transport.queued())


def test_the_list_shows_what_is_dead_and_why(admin: Client, dead: DeferredTask) -> None:
    page = admin.get(reverse(CHANGELIST), {"state": "dead"}).content.decode()
    assert dead.pk in page
    assert "testapp.tasks:record" in page
    assert "permanent" in page


def test_one_is_shown_with_its_traceback_and_nothing_to_edit(admin: Client, dead: DeferredTask) -> None:
    page = admin.get(reverse("admin:defer_django_deferredtask_change", args=[dead.pk])).content.decode()
    assert "the shop is closed" in page
    assert "<textarea" not in page
    assert 'name="state"' not in page
    assert admin.get(reverse("admin:defer_django_deferredtask_add")).status_code == 403


def test_no_credentials_are_shown(admin: Client) -> None:
    url = "https://ship:hush@shop.example/run?token=hush#hush"
    handle = defer(tasks.record, 7, _headers={"Authorization": "Bearer hush", "X-Shop": "hush"}, _url=url)
    page = admin.get(reverse("admin:defer_django_deferredtask_change", args=[handle.record_id])).content.decode()
    assert "hush" not in page and "Authorization" in page and "X-Shop" in page
    assert "https://shop.example/run?" in page


def test_the_action_runs_it_again_under_a_new_name(admin: Client, dead: DeferredTask, calls: list[Any]) -> None:
    answer = admin.post(reverse(CHANGELIST), {"action": "rerun", "_selected_action": [dead.pk]}, follow=True)
    assert "1 re-run." in answer.content.decode()
    drain()
    assert calls == [(1,)]
    assert not DeferredTask.objects.filter(state=State.DEAD).exists()


def test_what_is_not_dead_is_not_run_again(admin: Client) -> None:
    handle = defer(tasks.record, 2)
    chosen = {"action": "rerun", "_selected_action": [handle.record_id]}
    answer = admin.post(f"{reverse(CHANGELIST)}?state=all", chosen, follow=True)
    assert "There is no dead letter" in answer.content.decode()
    assert queued() == 1


def test_only_dead_letters_are_deleted(admin: Client, dead: DeferredTask) -> None:
    chosen = [dead.pk, defer(tasks.record, 2).record_id]
    posted = {"action": "delete_selected", "_selected_action": chosen, "post": "yes"}
    assert admin.post(f"{reverse(CHANGELIST)}?state=all", posted).status_code == 302
    assert [each.pk for each in DeferredTask.objects.filter(pk__in=chosen)] == chosen[1:]


@pytest.mark.on_sql  # permissions are joins
def test_staff_without_permission_sees_nothing(client: Client, dead: DeferredTask) -> None:
    client.force_login(User.objects.create_user("clerk", is_staff=True))
    assert client.get(reverse(CHANGELIST)).status_code == 403


def test_defer_dead_lists_shows_and_runs_again(dead: DeferredTask, calls: list[Any]) -> None:
    assert f"{dead.pk}  " in run("defer_dead", "list")
    assert "Traceback" in run("defer_dead", "show", dead.pk)
    assert "sent" in run("defer_dead", "rerun", dead.pk)
    drain()
    assert calls == [(1,)]


def test_defer_dead_drops(dead: DeferredTask) -> None:
    assert "dropped" in run("defer_dead", "drop", "all")
    assert not DeferredTask.objects.filter(state=State.DEAD).exists()


def test_defer_dead_says_what_is_wrong() -> None:
    with pytest.raises(CommandError, match="no dead letter 123"):
        run("defer_dead", "rerun", "123")


@pytest.mark.on_sql
@pytest.mark.parametrize("asked", [["list"], ["show", "123"], ["drop", "all"]], ids=str)
def test_defer_dead_says_in_a_line_that_the_database_is_down(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any, **kwargs: Any) -> Any:
        raise OperationalError("connection refused")

    for method in ("get", "list"):
        monkeypatch.setattr(DjangoTaskStore, method, refused)
    with pytest.raises(CommandError, match=r"^The store django default cannot be asked: OperationalError"):
        run("defer_dead", *asked)


def test_defer_sweep_says_what_it_did_on_every_alias(calls: list[Any]) -> None:
    from dataclasses import replace

    from defer_core.send.outbox import inline, new_record, seal
    from defer_core.task import Task

    config, store = current(), current().the_store
    assert store is not None
    for alias in ("default", "other"):
        task = Task(func=tasks.record, args=(alias,))
        sealed = seal(task, config)
        record = new_record(task, sealed, inline(sealed, task.options, config), store, config)
        store.using(alias).put([replace(record, due=0.0)])
    said = run("defer_sweep")
    assert "2 sent" in said
    assert "django other: late 0, failing 0, dead 0" in said
    drain()
    assert sorted(calls) == [("default",), ("other",)]


def test_defer_queues_says_what_it_needs() -> None:
    with pytest.raises(CommandError, match="Only Cloud Tasks has queues"):
        run("defer_queues", "show")


@pytest.mark.on_gcloudc
def test_large_letters_are_listed_though_they_are_more_than_one_answer(admin: Client) -> None:
    store, payload = task_store(), b"x" * 900_000
    for _ in range(8):
        dead = TaskRecord(id=new_id(), envelope=b"", payload=payload, state=State.DEAD, created=1.0, due=1.0)
        store.put([dead])
    for query in ({}, {"state": "all"}, {"state": "dead", "queue": "default"}, {"state": "late"}):
        assert admin.get(reverse(CHANGELIST), query).status_code == 200
    assert admin.get(reverse(CHANGELIST)).content.decode().count('<td class="field-what">') == 8
