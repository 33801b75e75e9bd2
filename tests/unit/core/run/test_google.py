"""Our bodies under Google's own handler, unmodified."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import services

from defer_core import (
    PermanentTaskFailure,
    SingularTaskFailure,
    current_delivery,
    defer,
)
from defer_core.record import State
from defer_core.testing import MemoryStore, in_memory

calls: list[Any] = []


def note(*args: Any) -> None:
    calls.append(args)


def fail(kind: str) -> None:
    raise {"permanent": PermanentTaskFailure, "singular": SingularTaskFailure, "value": ValueError}[kind](kind)


def body_of(func: Any, *args: Any) -> bytes:
    with in_memory() as queue:
        defer(func, *args)
        return queue.queued()[0].message.body


def test_the_real_sdk_runs_it() -> None:
    deferred = services.library("google.appengine.ext.deferred")
    calls.clear()
    with in_memory():
        deferred.run(body_of(note, 1, "two"))
    assert calls == [(1, "two")]


def test_the_real_sdk_gets_its_own_failures() -> None:
    deferred = services.library("google.appengine.ext.deferred")
    store = MemoryStore()
    with in_memory(store=store):
        with pytest.raises(deferred.PermanentTaskFailure):
            deferred.run(body_of(fail, "permanent"))
        assert store.count(State.DEAD) == 1
        with pytest.raises(deferred.SingularTaskFailure):
            deferred.run(body_of(fail, "singular"))
        with pytest.raises(ValueError, match="value"):
            deferred.run(body_of(fail, "value"))


KEYS = {"keys": ["k" * 32], "sweep_interval": 0.0}


@pytest.mark.parametrize(("told", "runs"), [("mail", True), ("slow", False), (None, True)])
def test_googles_own_handler_asks_as_far_as_it_knows(
    monkeypatch: pytest.MonkeyPatch, told: str | None, runs: bool
) -> None:
    if told is not None:
        monkeypatch.setenv("HTTP_X_APPENGINE_QUEUENAME", told)
    calls.clear()
    with in_memory(**KEYS, bind_queue=True) as queue:
        defer(note, 1, _queue="mail")
        func, args, kwargs = pickle.loads(queue.queued()[0].message.body)
        if runs:
            func(*args, **kwargs)
        else:
            with pytest.raises(Exception, match="failed for good"):
                func(*args, **kwargs)
    assert calls == [(1,)] * runs


def note_delivery() -> None:
    calls.append(current_delivery())


def test_the_attempt_has_what_the_request_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_X_APPENGINE_QUEUENAME", "mail")
    monkeypatch.setenv("HTTP_X_CLOUD_TRACE_CONTEXT", "4bf92f3577b34da6a3ce929d0e0e4736/17")
    calls.clear()
    with in_memory():
        function, arguments, _ = pickle.loads(body_of(note_delivery))
        function(*arguments)
    [delivery] = calls
    assert (delivery.target, delivery.queue) == ("google", "mail")
    assert delivery.trace == "4bf92f3577b34da6a3ce929d0e0e4736/17"
