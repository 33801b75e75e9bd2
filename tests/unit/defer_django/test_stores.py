"""Which store a database alias has."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from textwrap import dedent

import pytest
import services
from django.db import OperationalError, connection

from defer_core.errors import ConfigError
from defer_core.spi import current
from defer_core.testing import configured
from defer_django import datastore
from defer_django.datastore import DatastoreTaskStore
from defer_django.store import DjangoTaskStore
from defer_django.stores import task_store


def test_a_database_of_sql_has_rows() -> None:
    store = task_store(alias="other")
    assert (type(store), store.alias) == (DjangoTaskStore, "other")
    assert type(store.using("default")) is DjangoTaskStore
    assert store.using("default").using("other") is store


def test_the_store_of_the_other_kind_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"DatastoreTaskStore is not made for the database 'default'.*'django'"):
        DatastoreTaskStore()


def test_a_function_that_makes_no_store_is_refused() -> None:
    with (
        configured(transport="memory", store="os:getcwd"),
        pytest.raises(ConfigError, match="'os:getcwd' is no TaskSt"),
    ):
        current().the_store  # noqa: B018
    with configured(transport="memory", store="os:sep"), pytest.raises(ConfigError, match="'os:sep' is no TaskStore"):
        current().the_store  # noqa: B018


MIXED = """
    from django.conf import settings
    settings.configure(DATABASES={
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
        "records": {"ENGINE": "gcloudc.db.backends.datastore", "PROJECT": "shop", "INDEXES_FILE": "x", "NAMESPACE": ""},
    }, SECRET_KEY="s" * 40, INSTALLED_APPS=["defer_django"], DEFER={"TRANSPORT": "memory"})
    import django
    django.setup()
    from defer_core.spi import current
    from defer_core.errors import ConfigError
    from defer_django.store import DjangoTaskStore
    store = current().the_store
    print(type(store).__name__, type(store.using("records")).__name__)
    print(type(store.using("records").using("default")).__name__, store.using("records").using("default") is store)
    try:
        DjangoTaskStore(alias="records")
    except ConfigError as error:
        print(error)
"""


@pytest.mark.gcloudc
def test_a_datastore_beside_it_has_entities() -> None:
    services.library("gcloudc")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO", "DEFER"))}
    ran = subprocess.run([sys.executable, "-c", dedent(MIXED)], capture_output=True, text=True, env=environ)
    kinds, back, refusal = ran.stdout.splitlines()
    assert kinds == "DjangoTaskStore DatastoreTaskStore", ran.stderr
    assert back == "DjangoTaskStore True"
    assert refusal.startswith("DjangoTaskStore is not made for the database 'records'")


@pytest.mark.on_sql
@pytest.mark.django_db(transaction=True)
def test_a_thread_that_looks_briefly_leaves_no_connection_open() -> None:
    store, left = DjangoTaskStore(), list[object]()

    def look() -> None:
        with store.briefly():
            left.extend([store.oldest_pending(), connection.connection is not None])
        left.append(connection.connection)

    connection.ensure_connection()
    (thread := threading.Thread(target=look)).start()
    thread.join(60)
    assert left == [None, True, None]
    look()  # a connection that was there stays
    assert left[3:] == [None, True, connection.connection]
    assert connection.connection is not None


@pytest.mark.parametrize(("waited", "longest"), [(0.0, 2.56), (2.0, 2.56), (60.0, 3.0)])
def test_transactions_that_waited_for_each_other_do_not_meet_again_at_once(
    waited: float, longest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All fail when the wait ends: pauses that are short beside it would let all of them lose again."""
    now, bounds = [0.0], []

    def lose() -> None:
        now[0] += waited
        raise OperationalError("Transaction lock timeout.")

    def draw(least: float, most: float) -> float:
        bounds.append((least, most))
        return 0.0

    monkeypatch.setattr(datastore.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(datastore.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(datastore.random, "uniform", draw)
    with pytest.raises(OperationalError):
        datastore.begun_again(lose)
    assert len(bounds) == datastore.TRIES - 1
    assert {least for least, _ in bounds} == {0.0} and max(bounds)[1] == pytest.approx(longest)
