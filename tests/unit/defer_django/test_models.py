"""The table of records: the column that says the queue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aliases import alias
from django.core.management import call_command
from django.db import connections
from django.db.migrations.executor import MigrationExecutor

from defer_core.spi import Routing, TaskRecord, new_id
from defer_django.models import DeferredTask
from defer_django.stores import task_store

WITH_QUEUE, WITHOUT = "0003_queue", "0002_failing"
ROUTINGS = {"a": '{"queue": "mail"}', "b": "{}", "c": '{"queue": "mail"}', "d": "no JSON", "e": "not " * 300}


def record(**fields: Any) -> TaskRecord:
    return TaskRecord(id=new_id(), envelope=b"wire", created=1.0, due=1.0, **fields)


@pytest.mark.django_db(transaction=True)
def test_the_queue_is_a_column_that_follows_the_routing() -> None:
    store, mail = task_store(), record(routing=Routing(queue="mail"))
    others = [record(), record(routing=Routing(queue="q" * 300))]
    store.put([mail])
    store.put(others)
    found = [DeferredTask.objects.get(pk=each.id).queue for each in (mail, *others)]
    assert found == ["mail", "default", "q" * 100]
    assert store.mark(mail.id, lease="", routing=Routing(queue="reports"))
    assert DeferredTask.objects.get(queue="reports").pk == mail.id
    assert store.get(mail.id) == replace(mail, routing=Routing(queue="reports"))


@pytest.fixture
def old(tmp_path: Path, django_db_blocker: Any) -> Iterator[str]:
    """A database of the release before, with its rows."""
    file = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "old.sqlite3"), "OPTIONS": {}}
    with django_db_blocker.unblock(), alias("old", file):
        call_command("migrate", "defer_django", WITHOUT, database="old", verbosity=0)
        write_as_before()
        yield "old"


def write_as_before(**ids: str) -> None:
    """Write rows as the release before does, which does not know the column."""
    state = MigrationExecutor(connections["old"]).loader.project_state(("defer_django", WITHOUT))
    rows = state.apps.get_model("defer_django", "DeferredTask").objects.using("old")
    for pk, routing in (ids or ROUTINGS).items():
        rows.create(pk=pk, envelope=b"wire", routing=routing, state="dead", created=1.0, due=1.0)


@pytest.mark.on_sql
def test_old_rows_get_theirs_by_the_migration(old: str) -> None:
    call_command("migrate", "defer_django", WITH_QUEUE, database=old, verbosity=0)
    found = dict(DeferredTask.objects.using(old).values_list("pk", "queue"))
    assert found == {"a": "mail", "b": "default", "c": "mail", "d": "", "e": ""}


@pytest.mark.on_sql
def test_a_process_of_the_release_before_still_writes_and_its_rows_are_read(old: str) -> None:
    call_command("migrate", "defer_django", WITH_QUEUE, database=old, verbosity=0)
    write_as_before(late='{"queue": "reports"}')
    row = DeferredTask.objects.using(old).get(pk="late")
    assert row.queue == "" and row.queue_name == "reports"
