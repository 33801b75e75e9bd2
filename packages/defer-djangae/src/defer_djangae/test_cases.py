"""`djangae.test`: test cases and a runner for Djangae sites."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from django import test
from django.core.cache import cache
from django.test.runner import DiscoverRunner

from .testing import (
    TaskFailedBehaviour,
    TaskFailedError,
    TestCaseMixin,
    assertNumTasksEquals,
    flush_task_queues,
    get_task_count,
    memory_queue,
    process_task_queues,
)

__all__ = [
    "AppEngineDiscoverRunner",
    "TaskFailedBehaviour",
    "TaskFailedError",
    "TestCase",
    "TestCaseMixin",
    "TestEnvironmentMixin",
    "TransactionTestCase",
    "assertNumTasksEquals",
    "flush_task_queues",
    "get_task_count",
    "process_task_queues",
]


class TestEnvironmentMixin(test.SimpleTestCase):
    """Clears the cache before each test."""

    def setUp(self) -> None:
        cache.clear()
        super().setUp()


class TransactionTestCase(TestEnvironmentMixin, TestCaseMixin, test.TransactionTestCase):
    """Real transactions: what is deferred in one is queued at its commit."""


class TestCase(TestEnvironmentMixin, TestCaseMixin, test.TransactionTestCase):
    """As in Djangae: no transaction around the test, or nothing deferred in one would ever be queued."""


class AppEngineDiscoverRunner(DiscoverRunner):
    """Queues tasks in memory for the whole run, so that no test needs an emulator."""

    def setup_test_environment(self, **kwargs: Any) -> None:
        self._queue = ExitStack()
        self._queue.enter_context(memory_queue())
        super().setup_test_environment(**kwargs)

    def teardown_test_environment(self, **kwargs: Any) -> None:
        super().teardown_test_environment(**kwargs)
        self._queue.close()
