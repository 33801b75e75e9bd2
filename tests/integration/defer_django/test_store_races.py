"""The store's own races on PostgreSQL: two connections to one database, interleaved statement by statement."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core.management import call_command
from django.db import connections

from defer_core.record import State, TaskRecord, new_id
from defer_django.models import DeferredTask
from defer_django.store import DjangoTaskStore

NOW = 1_700_000_000.0
ALIASES = ("first", "second")


@pytest.fixture(scope="module")
def database(postgres: str, django_db_blocker: Any) -> Iterator[None]:
    """Both aliases are the same database; waiting for a lock for long is a failure, not a hang."""
    where = urlsplit(postgres)
    own = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": where.path.strip("/"),
        "USER": where.username or "postgres",
        "HOST": parse_qs(where.query)["host"][0],
        "OPTIONS": {"options": "-c lock_timeout=10000"},
    }
    with django_db_blocker.unblock():
        for alias in ALIASES:
            connections.settings[alias] = {**connections.settings["default"], **own}
        call_command("migrate", database="first", run_syncdb=True, verbosity=0)
        yield
        for alias in ALIASES:
            connections[alias].close()
            del connections[alias]
            del connections.settings[alias]


@pytest.fixture
def stores(database: None, django_db_blocker: Any) -> Iterator[list[DjangoTaskStore]]:
    """One store on each connection, empty."""
    with django_db_blocker.unblock():
        DeferredTask.objects.using("first").all().delete()
        yield [DjangoTaskStore(alias=alias) for alias in ALIASES]


def a_record(**fields: Any) -> TaskRecord:
    return TaskRecord(**({"id": new_id(), "envelope": b"wire", "created": NOW, "due": NOW} | fields))


def test_a_lease_does_not_wait_for_another_and_takes_what_is_left(stores: list[DjangoTaskStore]) -> None:
    first, second = stores
    first.put([a_record(due=NOW - 2), a_record(due=NOW - 1)])
    with first.transaction():
        [mine] = first.lease_due(now=NOW, limit=1, seconds=60)
        [theirs] = second.lease_due(now=NOW, limit=5, seconds=60)
    assert mine.id != theirs.id
    assert second.lease_due(now=NOW, limit=5, seconds=60) == []


def test_what_is_not_committed_is_not_leased(stores: list[DjangoTaskStore]) -> None:
    first, second = stores
    with first.transaction():
        first.put([a_record()])
        assert second.lease_due(now=NOW, limit=5, seconds=60) == []
    assert len(second.lease_due(now=NOW, limit=5, seconds=60)) == 1


def test_a_carried_delete_leaves_what_has_died_meanwhile(stores: list[DjangoTaskStore]) -> None:
    first, second = stores
    sent = a_record()
    first.put([sent])
    with first.transaction():
        assert second.mark(sent.id, lease="", state=State.DEAD)
        first.put([a_record()], [sent.id])
    found = second.get(sent.id)
    assert found is not None
    assert found.state is State.DEAD


def test_a_carried_delete_waits_for_a_mark_and_then_sees_it(stores: list[DjangoTaskStore]) -> None:
    """READ COMMITTED looks again at a row that it has waited for."""
    first, second = stores
    sent = a_record()
    first.put([sent])
    thread = in_thread(lambda: DjangoTaskStore(alias="second").put([a_record()], [sent.id]))
    with first.transaction():
        first.mark(sent.id, lease="", state=State.DEAD)
        thread.start()
        wait_until_blocked()
    thread.join(20)
    found = second.get(sent.id)
    assert found is not None
    assert found.state is State.DEAD


def test_a_mark_under_a_lease_that_was_taken_over_changes_nothing(stores: list[DjangoTaskStore]) -> None:
    first, second = stores
    first.put([a_record()])
    [stale] = first.lease_due(now=NOW, limit=1, seconds=60)
    done: list[bool] = []
    thread = in_thread(
        lambda: done.append(DjangoTaskStore(alias="first").mark(stale.id, lease=stale.lease, attempts=9))
    )
    with second.transaction():
        [fresh] = second.lease_due(now=NOW + 60, limit=1, seconds=60)
        thread.start()
        wait_until_blocked()
    thread.join(20)
    assert done == [False]
    found = first.get(stale.id)
    assert found is not None
    assert (found.lease, found.attempts) == (fresh.lease, 0)


def test_a_delete_under_a_lease_that_was_taken_over_deletes_nothing(stores: list[DjangoTaskStore]) -> None:
    first, second = stores
    first.put([a_record()])
    [stale] = first.lease_due(now=NOW, limit=1, seconds=60)
    done: list[int] = []
    thread = in_thread(lambda: done.append(DjangoTaskStore(alias="first").delete([stale.id], lease=stale.lease)))
    with second.transaction():
        second.lease_due(now=NOW + 60, limit=1, seconds=60)
        thread.start()
        wait_until_blocked()
    thread.join(20)
    assert done == [0]
    assert first.get(stale.id) is not None


def in_thread(work: Any) -> threading.Thread:
    """A thread with a connection of its own."""

    def target() -> None:
        try:
            work()
        finally:
            connections.close_all()

    return threading.Thread(target=target)


def wait_until_blocked() -> None:
    """Until some connection waits for a lock."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with connections["second"].cursor() as cursor:
            cursor.execute("SELECT pg_stat_clear_snapshot()")  # within a transaction it would stay as it was
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            if cursor.fetchone()[0]:
                return
        time.sleep(0.01)
    raise AssertionError("Nobody waits for a lock.")
