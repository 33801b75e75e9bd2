"""Tests of a Django project: nothing reaches a real queue, and a TestCase sees its tasks as commits would leave them.

    class OrderTests(DeferredTasks, TestCase):
        def test_it_is_shipped(self):
            self.client.post("/orders/", ...)
            self.deferred.assert_called(ship, args=[1])
            self.deferred.run()

Without the mixin (and under pytest, whose fixture is `deferred`) a test has a queue of its own as well.
"""

from __future__ import annotations

import sys
import threading
import unittest
from functools import partial
from typing import Any

from django.core import mail
from django.db import connections

from defer_core import Status, TaskHandle
from defer_core.spi import Config
from defer_core.testing import Deferred, Isolation

from . import conf
from .conf import in_tests

_present: tuple[Any, Any, Isolation] | None = None
"""The outbox and the test that the queue belongs to, and the queue."""


def layer(config: Config) -> Config | None:
    """Return the configuration of the running test; None outside Django's test environment."""
    if not in_tests() or not conf.given().get("ISOLATE_TESTS", True):
        return None
    return _of_this_test().layer(config)


def _of_this_test() -> Isolation:
    """Return the queue of this test, told by its outbox: Django makes a new one for each test, as some tests do."""
    global _present
    outbox = getattr(mail, "outbox", None)
    if _present is None or _present[0] is not outbox:
        test = _running_test()
        known = _present is not None and test is not None and _present[1] is test
        _present = (outbox, test, _present[2] if known and _present is not None else Isolation())
    return _present[2]


def _running_test() -> Any:
    """Return the test case that runs in the main thread (a live server serves it, too), or None."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        if frame.f_code is unittest.TestCase.run.__code__:
            return frame.f_locals["self"]
        frame = frame.f_back
    return None


class DeferredTasks:
    """A mixin of a TestCase, with its tasks as `deferred`."""

    @property
    def deferred(self) -> Deferred:
        """Return the tasks that this test has deferred."""
        return Deferred()


def settle() -> None:
    """Send what waits for the commit of the project's own transactions, which a TestCase never commits.

    Open transactions have left nothing yet, and those that were rolled back never will.
    """
    for connection in connections.all(initialized_only=True):
        blocks: list[Any] = getattr(connection, "atomic_blocks", [])
        if not blocks or not blocks[0]._from_testcase:
            continue
        opened = {
            savepoint
            for savepoint, block in zip(connection.savepoint_ids, blocks[1:], strict=False)
            if not block._from_testcase
        }
        for savepoints, func, *_ in list(connection.run_on_commit):
            if _waits(func) and not opened.intersection(savepoints):
                func()


def _waits(func: Any) -> bool:
    """Tell whether a hook of a transaction is one of ours that has not run."""
    handles = func.args[-1:] if isinstance(func, partial) else ()
    several = handles[0] if handles and isinstance(handles[0], list) else handles
    return any(isinstance(each, TaskHandle) and each.status is Status.WAITS_FOR_COMMIT for each in several)
