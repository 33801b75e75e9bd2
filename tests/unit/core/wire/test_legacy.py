"""Bodies that older libraries have queued."""

from __future__ import annotations

import os
import pickle
import sys
import types
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from defer_core import (
    Delivery,
    Outcome,
    PermanentTaskFailure,
    SingularTaskFailure,
    clock,
    current_delivery,
    execute,
)
from defer_core.record import State
from defer_core.testing import MemoryStore, in_memory
from defer_core.wire import legacy

calls: list[Any] = []
NOW = 1_800_000_000.0
DELIVERY = Delivery(task_name="t", queue="q", retry_count=0, started=NOW)


def note(*args: Any) -> None:
    calls.append((args, current_delivery()))


def fail(kind: str) -> None:
    calls.append(kind)
    raise {"permanent": PermanentTaskFailure, "singular": SingularTaskFailure, "value": ValueError}[kind](kind)


@pytest.fixture(autouse=True)
def _at_a_fixed_time() -> Iterator[None]:
    calls.clear()
    with clock.replaced(lambda: NOW):
        yield


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def dead(store: MemoryStore) -> list[Any]:
    return store.list(State.DEAD)


def test_legacy_pickles_run_only_where_accepted(store: MemoryStore) -> None:
    body = pickle.dumps((note, (7,), {}), 2)
    with in_memory(store=store):
        assert execute(body, DELIVERY) is Outcome.PERMANENT
        assert calls == []
    with in_memory(store=store, accept_legacy_pickles=True):
        assert execute(body, DELIVERY) is Outcome.DONE
        assert calls[0][0] == (7,)
        assert execute(body, replace(DELIVERY, require_signature=True)) is Outcome.PERMANENT


def test_what_no_project_means_is_refused_in_legacy_pickles_too(store: MemoryStore) -> None:
    for call in ((os.system, ("true",), {}), (note, (os.system,), {})):
        with in_memory(store=store, accept_legacy_pickles=True):
            assert execute(pickle.dumps(call, 2), DELIVERY) is Outcome.PERMANENT
    assert calls == [] and all("system may not be" in each.last_error for each in dead(store))
    with in_memory(store=store, accept_legacy_pickles=True, forbidden_callables=[]):
        assert execute(pickle.dumps((note, (os.system,), {}), 2), DELIVERY) is Outcome.DONE


class Shop:
    def note(self, *args: Any) -> None:
        note(*args)


@pytest.mark.parametrize(
    "call",
    [
        (note, (7,), {}),
        (partial(note, 7), (), {}),
        (Shop().note, (7,), {}),
        (legacy.invoke_member, (Shop(), "note", 7), {}),
    ],
    ids=["function", "partial", "method", "member"],
)
def test_an_allow_list_holds_for_what_legacy_pickles_call(store: MemoryStore, call: Any) -> None:
    body = pickle.dumps(call)
    with in_memory(store=store, accept_legacy_pickles=True, callables=["shop.*"]):
        assert execute(body, DELIVERY) is Outcome.PERMANENT
    [letter] = dead(store)
    assert calls == [] and "not among the configured `callables`" in letter.last_error
    with in_memory(store=store, accept_legacy_pickles=True, callables=[f"{__name__}.*"]):
        assert execute(body, DELIVERY) is Outcome.DONE
    assert calls[0][0] == (7,)


def test_an_allow_list_holds_for_what_lies_beside_djangaes_deferred(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove(*args: Any) -> None:
        note(*args)

    module = types.ModuleType("djangae.contrib.shop")
    remove.__module__, remove.__qualname__, module.remove = module.__name__, "remove", remove  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with in_memory(store=store, accept_legacy_pickles=True, callables=["shop.*"]):
        assert execute(pickle.dumps((remove, (7,), {})), DELIVERY) is Outcome.PERMANENT
    assert calls == []


def test_a_permanent_failure_of_a_legacy_task_is_kept_as_it_came(store: MemoryStore) -> None:
    body = pickle.dumps((fail, ("permanent",), {}), 2)
    with in_memory(store=store, accept_legacy_pickles=True):
        assert execute(body, DELIVERY) is Outcome.PERMANENT
    [letter] = dead(store)
    assert letter.envelope == body
