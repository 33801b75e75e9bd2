"""Without a queue: a task runs in the call that defers it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from defer_core import current_delivery, defer
from defer_core.testing import MemoryStore, in_memory
from defer_core.transports.immediate import ImmediateTransport

calls: list[Any] = []
STORE = MemoryStore()


def note(*args: Any) -> None:
    calls.append((args, current_delivery()))


def fail() -> None:
    raise ValueError("no lines")


@pytest.fixture(autouse=True)
def _immediate() -> Iterator[None]:
    calls.clear()
    with in_memory(transport=ImmediateTransport(), store=STORE):
        yield


def test_a_task_has_run_when_defer_returns_whatever_its_eta() -> None:
    handle = defer(note, 1, _queue="mail", _countdown=86400)
    [(args, delivery)] = calls
    assert args == (1,) and handle.was_enqueued
    assert (delivery.task_name, delivery.queue, delivery.target) == (handle.name, "mail", "immediate")


def test_its_exception_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="no lines"):
        defer(fail)


def test_in_a_transaction_it_runs_after_the_commit_and_its_exception_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="no lines"), STORE.transaction():
        defer(note)
        defer(fail)
        assert calls == []
    assert len(calls) == 1
