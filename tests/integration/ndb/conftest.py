"""NDB on Google's Firestore emulator in Datastore mode, where transactions are as in production."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import services
from testapp import tasks

from defer_core.record import new_id
from defer_core.stores.ndb.store import NdbTaskStore
from defer_core.testing import MemoryTransport, in_memory

ndb = services.library("google.cloud.ndb")


@pytest.fixture
def client(firestore: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The caller's client, in a namespace of this test's own."""
    monkeypatch.setenv("DATASTORE_EMULATOR_HOST", firestore)
    return ndb.Client(project=services.PROJECT, namespace=f"test-{new_id()}")


@pytest.fixture
def store(client: Any) -> NdbTaskStore:
    return NdbTaskStore(project=services.PROJECT, namespace=f"defer-{new_id()}")


@pytest.fixture
def queue(store: NdbTaskStore) -> Iterator[MemoryTransport]:
    tasks.calls.clear()
    with in_memory(store=store, sweep_grace=0.0) as transport:
        yield transport


@pytest.fixture
def context(client: Any) -> Iterator[Any]:
    """The caller is in a context."""
    with client.context() as current:
        yield current


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the calls that ndb makes."""
    from google.cloud.ndb import _datastore_api

    made: list[str] = []
    original = _datastore_api.make_call

    def counted(name: str, *args: Any, **kwargs: Any) -> Any:
        made.append(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(_datastore_api, "make_call", counted)
    return made
