"""What every TaskStore promises (`defer_core.testing.contracts`), run against every adapter.

An adapter is a function that takes pytest's request and returns a fresh, empty store.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import services

from defer_core.spi import TaskStore, new_id
from defer_core.testing import MemoryStore
from defer_core.testing.contracts import DurableTaskStoreContract, TaskStoreContract


def sqlite(request: pytest.FixtureRequest) -> TaskStore:
    from defer_core.stores.sqlite import SQLiteTaskStore

    store = SQLiteTaskStore(file=request.getfixturevalue("tmp_path") / "store.sqlite3")
    request.addfinalizer(store.close)
    return store


def django(request: pytest.FixtureRequest) -> TaskStore:
    services.library("django")
    from defer_django.stores import task_store

    return task_store()


def ndb(request: pytest.FixtureRequest, emulator: str) -> TaskStore:
    services.library("google.cloud.ndb")
    from defer_core.stores.ndb.store import NdbTaskStore

    address, patch = request.getfixturevalue(emulator), request.getfixturevalue("monkeypatch")
    patch.setenv("DATASTORE_EMULATOR_HOST", address)
    return NdbTaskStore(project=services.PROJECT, namespace=f"contract-{new_id()}")


def appengine(request: pytest.FixtureRequest) -> TaskStore:
    testbed = services.library("google.appengine.ext.testbed")
    from defer_core.stores.appengine.store import AppEngineTaskStore

    bed = testbed.Testbed()
    bed.activate()
    request.addfinalizer(bed.deactivate)
    bed.init_datastore_v3_stub()
    bed.init_memcache_stub()
    return AppEngineTaskStore()


ADAPTERS: dict[str, Callable[[pytest.FixtureRequest], TaskStore]] = {
    "appengine": appengine,
    "sqlite": sqlite,
    "django": django,
    "ndb on datastore": lambda request: ndb(request, "datastore"),
    "ndb on firestore": lambda request: ndb(request, "firestore"),
}


MARKS = {"django": pytest.mark.django_db(transaction=True)}
"""What must be known of a test before its fixtures are made."""


PARAMS = [pytest.param(name, marks=MARKS.get(name, ())) for name in sorted(ADAPTERS)]


class TestMemoryStore(TaskStoreContract):
    @pytest.fixture
    def store(self) -> TaskStore:
        return MemoryStore()


class TestDurableStores(DurableTaskStoreContract):
    @pytest.fixture(params=PARAMS)
    def store(self, request: pytest.FixtureRequest) -> TaskStore:
        return ADAPTERS[request.param](request)

    def end_thread(self, store: TaskStore) -> None:
        """Close Django's connections, which are each thread's own."""
        if "django.db" in sys.modules:
            from django.db import connections

            connections.close_all()

    def spoil(self, store: Any, record_id: str) -> None:
        """Make a record unreadable, as a stray hand or another release might."""
        if store.name == "sqlite":
            store.file.connection().execute("UPDATE records SET routing = '{' WHERE id = ?", (record_id,))
        elif store.name == "django":
            from defer_django.models import DeferredTask

            DeferredTask.objects.using(store.alias).filter(pk=record_id).update(routing="{")
        elif store.name == "ndb":
            with store._clients.context():
                entity = store._find(record_id)
                entity.routing = "{"
                entity.put()
        else:
            from google.appengine.api import datastore, datastore_types

            entity = store._find(record_id)
            entity["routing"] = datastore_types.Text("{")
            datastore.Put(entity)
