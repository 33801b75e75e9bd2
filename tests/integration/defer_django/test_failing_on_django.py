"""Failing tasks, dead letters and the sweep on a database of Django's: what each costs, and what two at once do."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from testapp import tasks

from defer_core import Delivery, clock, defer, execute
from defer_core.config import current
from defer_core.record import State, TaskRecord, new_id
from defer_core.testing import MemoryTransport
from defer_core.upkeep import sweep
from defer_core.wire import frame
from defer_core.wire.envelope import Envelope, encode
from defer_django.models import DeferredTask
from defer_django.store import DjangoTaskStore

pytestmark = [pytest.mark.django_db(transaction=True, databases=["default", "other"]), pytest.mark.on_sql]
LARGE = os.urandom(150_000)


def body_of(func: Callable[..., Any], *args: Any, **options: Any) -> bytes:
    """The body that a defer sends; of an inline one the record is forgotten."""
    defer(func, *args, **options)
    transport = current().the_transport
    assert isinstance(transport, MemoryTransport)
    body = transport.queued()[-1].message.body
    transport.clear()
    DeferredTask.objects.filter(payload=None, state="pending").delete()
    return body


def attempt(body: bytes, number: int) -> list[str]:
    """The statements of an attempt, by their first words."""
    delivery = Delivery(task_name="7f", queue="default", retry_count=number - 1, target="http")
    with CaptureQueriesContext(connection) as queries:
        with suppress(ValueError):
            execute(body, delivery)
    return [each["sql"].partition(" ")[0] for each in queries if each["sql"] != "BEGIN"]


def test_what_an_attempt_costs(calls: list[Any]) -> None:
    body = body_of(tasks.record)
    assert attempt(body, 1) == []
    assert attempt(body, 2) == ["DELETE"]
    assert attempt(body_of(tasks.record, _small_task=True), 1) == []
    claim = body_of(tasks.record, LARGE)
    assert attempt(claim, 1) == ["SELECT", "DELETE"]


def test_what_a_failure_costs() -> None:
    body = body_of(tasks.fail)
    assert attempt(body, 1) == ["UPDATE", "SELECT", "SELECT", "INSERT"]  # the second look counts, once a minute
    assert attempt(body, 2) == ["UPDATE"]
    claim = body_of(tasks.refuse, LARGE)
    assert attempt(claim, 1) == ["SELECT", "UPDATE"]
    assert attempt(claim, 2) == ["SELECT", "UPDATE"]
    assert DeferredTask.objects.filter(state="failing").count() == 2


def test_a_message_that_a_database_does_not_take_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    for number, message in enumerate(("\ud800", "a\x00b", "caf\udce9.csv")):
        body = body_of(tasks.fail, message, _retry_options={"max_attempts": 1})
        attempt(body, 1)
        assert DeferredTask.objects.filter(state="dead", reason="gave up").count() == number + 1
    assert caplog.text.encode() and "\0" not in caplog.text


def test_other_than_the_default_database_keeps_its_own() -> None:
    body = body_of(tasks.refuse, LARGE, _using="other")
    execute_quietly(body)
    assert DeferredTask.objects.using("other").get().state == State.FAILING
    assert not DeferredTask.objects.exists()


def execute_quietly(body: bytes) -> None:
    with pytest.raises(ValueError):
        execute(body, Delivery(task_name="7f", queue="default", retry_count=0, target="http"))


# --- the sweep, and strangers' bodies, in numbers ---------------------------------------------------------------------


def letters(count: int, *, verified: bool = True, **fields: Any) -> None:
    now = time.time()
    given = {"envelope": b"\xdf" * 5000, "state": State.DEAD, "verified": verified, "created": now, "due": now}
    records = [TaskRecord(id=new_id(), **{**given, "last_attempt": now, **fields}) for _ in range(count)]
    DjangoTaskStore().put(records)


def statements_of(work: Callable[[], object]) -> list[str]:
    """The statements of some work, without their values."""
    with CaptureQueriesContext(connection) as queries:
        work()
    return [re.sub(r"'[^']*'|[0-9][0-9.e+]*", "?", each["sql"]) for each in queries]


@pytest.mark.parametrize("failing", [0, 50])
def test_a_sweep_that_finds_nothing_to_do_reads_no_letter(failing: int) -> None:
    letters(10)
    sweep.sweep()
    first = statements_of(sweep.sweep)
    letters(300)
    letters(failing, state=State.FAILING, due=time.time() + 1000)
    again = statements_of(sweep.sweep)
    assert sorted(first) == sorted(again)  # the sweepers take turns
    assert not any("envelope" in each for each in first)


def test_a_body_that_nobody_vouches_for_costs_the_same_however_many_are_kept() -> None:
    letters(10)
    stranger = frame.wrap(encode(Envelope(payload=b"x", created=time.time())))
    first = statements_of(lambda: execute(stranger, Delivery(task_name="t", queue="default", retry_count=0)))
    letters(80, verified=False)
    letters(300)
    again = statements_of(lambda: execute(stranger, Delivery(task_name="t", queue="default", retry_count=0)))
    assert first == again
    assert not any("envelope" in each for each in first if each.startswith("SELECT"))
    assert DeferredTask.objects.filter(verified=False).count() == 82


def test_the_limit_of_unverified_letters_does_not_count_the_others() -> None:
    letters(200)
    letters(99, verified=False)
    stranger = frame.wrap(encode(Envelope(payload=b"x", created=time.time())))
    for _ in range(3):
        execute(stranger, Delivery(task_name="t", queue="default", retry_count=0))
    assert DeferredTask.objects.filter(verified=False).count() == 100


def test_old_letters_go_by_their_ids_and_nothing_else_does() -> None:
    old = time.time() - 31 * 86400
    letters(100, last_attempt=old)
    letters(3, last_attempt=None, created=old)
    letters(3, created=old)
    letters(3, state=State.FAILING, last_attempt=old, due=time.time() + 1000)
    with CaptureQueriesContext(connection) as queries:
        assert sweep.sweep().counts == {"expired": 103}
    assert not any("envelope" in each["sql"] for each in queries)
    assert DeferredTask.objects.count() == 6


@pytest.mark.on_sqlite  # its plans
def test_the_queries_of_the_sweep_use_an_index() -> None:
    store = DjangoTaskStore()
    with CaptureQueriesContext(connection) as queries:
        store.count(State.DEAD)
        store.count(State.PENDING, due=1.0)
        store.count_unverified()
        store.expire(1.0, limit=10)
    for each in queries:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {each['sql']}")
            plan = " ".join(str(row[-1]) for row in cursor.fetchall())
        assert "USING" in plan and "SCAN" not in plan, (each["sql"], plan)


# --- two at once ------------------------------------------------------------------------------------------------------


def test_a_sweep_whose_page_was_taken_chooses_again() -> None:
    """Where a database cannot skip what another one has locked (SQLite), the other takes it between look and write."""
    store, other = DjangoTaskStore(), DjangoTaskStore()
    store.put([TaskRecord(id=new_id(), envelope=b"\xdf", due=float(number)) for number in range(5)])
    taken: list[TaskRecord] = []

    def overtaken(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("UPDATE") and not taken:
            taken.append(TaskRecord(id="", envelope=b""))
            taken[:] = other.lease_due(now=10.0, limit=2, seconds=60)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(overtaken):
        mine = store.lease_due(now=10.0, limit=2, seconds=60)
    assert len(taken) == 2 and len(mine) == 2
    assert not {each.id for each in mine} & {each.id for each in taken}


def test_a_letter_that_is_rerun_while_the_sweep_expires_is_kept(calls: list[Any]) -> None:
    from defer_core.upkeep import dead_letters

    body = body_of(tasks.fail, _retry_options={"max_attempts": 1})
    execute_quietly(body)
    letter = DeferredTask.objects.get()
    DeferredTask.objects.update(last_attempt=1.0)
    rerun: list[Any] = []

    def overtaken(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("DELETE") and not rerun:
            rerun.append(None)
            rerun[0] = dead_letters.rerun(letter.pk, DjangoTaskStore())
        return execute(sql, params, many, context)

    with connection.execute_wrapper(overtaken):
        assert DjangoTaskStore().expire(2.0, limit=10) == 0
    assert DeferredTask.objects.get().pk == rerun[0].record_id


def test_a_backlog_on_one_alias_leaves_the_other_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.time()]

    def slow(message: Any) -> str:
        now[0] += 0.1
        return "sent"

    monkeypatch.setattr(current().the_transport, "send", slow)
    monkeypatch.setattr(sweep, "_sweepers", {})
    record = TaskRecord(id=new_id(), envelope=b"\xdf", due=1.0)
    DjangoTaskStore().put([replace(record, id=new_id()) for _ in range(300)])
    DjangoTaskStore(alias="other").put([record])
    with clock.replaced(lambda: now[0]):
        sweep.sweep(budget=1.0)
    assert not DeferredTask.objects.using("other").exists()
    assert connections["default"].alias == "default" and DeferredTask.objects.count() > 280


# --- for people -------------------------------------------------------------------------------------------------------


def test_a_letter_says_what_was_called_with_what(calls: list[Any]) -> None:
    from io import StringIO

    from django.contrib.auth.models import User
    from django.core.management import call_command

    user = User.objects.create_user("ada")
    execute_quietly(body_of(tasks.refuse, user, token="s3cret", _retry_options={"max_attempts": 1}))
    out = StringIO()
    call_command("defer_dead", "show", "all", stdout=out)
    assert f"testapp.tasks.refuse(<auth.User {user.pk}>, token=••••••)" in out.getvalue()
    assert "attempts 1" in out.getvalue() and "s3cret" not in out.getvalue()
