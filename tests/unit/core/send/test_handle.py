"""The handle that defer() returns, as people see it."""

from __future__ import annotations

from typing import Any

import pytest

from defer_core import defer
from defer_core.send.handle import TaskHandle
from defer_core.task import Routing
from defer_core.testing import MemoryStore, in_memory

calls: list[Any] = []


def note(*args: Any, **kwargs: Any) -> None:
    calls.append((args, kwargs))


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def test_what_people_see_of_a_task_leaves_its_content_out(store: MemoryStore) -> None:
    with in_memory(store=store):
        handle = defer(note, "a secret")
    assert "a secret" not in repr(handle) and "a secret" not in repr(store.records)


def test_a_handle_is_shown_in_a_line() -> None:
    store = MemoryStore()
    with in_memory(store=store):
        handle = defer(note, "x" * 500, _name="ship-7", _queue="mail")
        assert repr(handle) == "<TaskHandle ship-7 in mail: sent>"
        with store.transaction():
            waits = defer(note)
            assert repr(waits) == f"<TaskHandle {waits.name} in default: waits for commit>"
    assert (
        repr(TaskHandle(routing=Routing(), payload=b"")) == "<TaskHandle without a name in default: waits for commit>"
    )
