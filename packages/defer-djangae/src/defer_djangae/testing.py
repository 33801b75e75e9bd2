"""`djangae.test` and `djangae.tasks.test`: tests that run what is queued, in this process, without an emulator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from functools import partial
from typing import Any

from django import test
from django.core.cache import cache
from django.test import SimpleTestCase
from django.test.runner import DiscoverRunner

from defer_core import current_delivery
from defer_core.errors import ConfigError, SingularTaskFailure
from defer_core.spi import Config, current
from defer_core.testing import MemoryTransport, QueuedTask, drain, in_memory
from defer_iteration.context import watching

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
    "memory_queue",
    "process_task_queues",
    "the_queue",
]


class TaskFailedBehaviour:
    """How `process_task_queues()` treats a task that fails."""

    DO_NOTHING = 0
    """Go on with the other tasks; the failed one is dropped."""
    RETRY_TASK = 1
    """Run it again, `max_task_retry_count` times at most."""
    RAISE_ERROR = 2
    """Raise TaskFailedError."""


class TaskFailedError(Exception):
    """A task has failed. `original_exception` is the exception of the task, and the cause of this one."""

    def __init__(self, task_name: str, status_code: int | str, original_exception: BaseException | None = None) -> None:
        self.task_name = task_name
        self.status_code = status_code
        self.original_exception = original_exception
        super().__init__(
            f"Task {task_name} failed with status code: {status_code}. \n\nMessage was: {original_exception!r}"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.task_name, self.status_code, self.original_exception)


@contextmanager
def memory_queue() -> Iterator[MemoryTransport]:
    """Queue tasks in memory inside a `with` block; other settings stay as they are."""
    from defer_django.conf import from_settings

    config = from_settings()
    settings = {each.name: getattr(config, each.name) for each in fields(Config)}
    with in_memory(**{**settings, "transport": None, "transport_options": {}, "sweep_interval": 0.0}) as transport:
        yield transport


def the_queue() -> MemoryTransport:
    """Return the memory queue of this test. Raises ConfigError if there is none."""
    transport = current().the_transport
    if not isinstance(transport, MemoryTransport):
        raise ConfigError(
            "This test has no memory queue: use djangae.test.TestCase, the runner "
            'djangae.test.AppEngineDiscoverRunner, or DEFER = {"TRANSPORT": "memory"} in the settings of the tests.'
        )
    return transport


def get_task_count(queue_name: str | None = None) -> int:
    """Count the tasks in a queue, or in all."""
    return len(the_queue().queued(queue_name))


def flush_task_queues(queue_name: str | None = None) -> None:
    """Remove the tasks of a queue, or of all."""
    queue = the_queue()
    for task in queue.queued(queue_name):
        queue.remove(task)


def assertNumTasksEquals(num: int, queue_name: str | None = None) -> None:
    """Raise AssertionError unless there are `num` tasks in a queue, or in all."""
    found = get_task_count(queue_name)
    if found != num:
        raise AssertionError(f"There are {found} tasks in {queue_name or 'all queues'}, not {num}.")


def process_task_queues(
    queue_name: str | None = None,
    failure_behaviour: int = TaskFailedBehaviour.RAISE_ERROR,
    max_task_retry_count: int = 100,
) -> None:
    """Run the tasks of a queue, or of all, and those that they defer, regardless of ETAs, until none is left.

    Raises TaskFailedError for a task that fails (`RAISE_ERROR`) or has failed `max_task_retry_count` times
    (`RETRY_TASK`), and with both once one row of an iteration has raised that often.
    """
    retrying = failure_behaviour == TaskFailedBehaviour.RETRY_TASK
    ignoring = failure_behaviour == TaskFailedBehaviour.DO_NOTHING
    with watching(partial(_row_raised, limit=max_task_retry_count, ignoring=ignoring)):
        try:
            drain(
                the_queue(),
                queue=queue_name,
                max_attempts=max_task_retry_count if retrying else 1,
                on_error="ignore" if ignoring else _failed,
            )
        except _RowFailed as failed:
            raise TaskFailedError(failed.task_name, 500, failed.error) from failed.error


class _RowFailed(BaseException):  # no Exception: the run path must not catch and retry it
    """A row of an iteration has reached the limit of its calls."""

    def __init__(self, task_name: str, error: Exception) -> None:
        super().__init__(task_name, error)
        self.task_name, self.error = task_name, error


def _row_raised(error: Exception, calls: int, *, limit: int, ignoring: bool) -> None:
    """Raise the exception of a row out of its shard once the limit is reached."""
    if calls < limit:
        return
    if ignoring:
        raise error
    delivery = current_delivery()
    raise _RowFailed(delivery.task_name if delivery else "", error)


def _failed(task: QueuedTask, error: Exception) -> None:
    status = 408 if isinstance(error, SingularTaskFailure) else 500
    raise TaskFailedError(task.name, status, error) from error


class TestCaseMixin(SimpleTestCase):
    """Queues tasks in memory for each test, with methods that run and count them."""

    max_task_retry_count = 100
    """How often a failing task, or a row of an iteration, is tried."""

    def setUp(self) -> None:
        super().setUp()
        self.task_queue = self.enterContext(memory_queue())

    def process_task_queues(
        self, queue_name: str | None = None, failure_behaviour: int = TaskFailedBehaviour.RAISE_ERROR
    ) -> None:
        """Run what is queued: see the function of that name."""
        process_task_queues(queue_name, failure_behaviour, self.max_task_retry_count)

    def get_task_count(self, queue_name: str | None = None) -> int:
        """Count the tasks in a queue, or in all."""
        return get_task_count(queue_name)

    def flush_task_queues(self, queue_name: str | None = None) -> None:
        """Remove the tasks of a queue, or of all."""
        flush_task_queues(queue_name)

    def assertNumTasksEquals(self, num: int, queue_name: str | None = None) -> None:
        """Fail unless there are `num` tasks in a queue, or in all."""
        self.assertEqual(num, self.get_task_count(queue_name))  # noqa: PT009


class TestEnvironmentMixin(SimpleTestCase):
    """Clears the cache before each test."""

    def setUp(self) -> None:
        cache.clear()
        super().setUp()


class TransactionTestCase(TestEnvironmentMixin, TestCaseMixin, test.TransactionTestCase):
    """Real transactions: their tasks are queued at the commit."""


class TestCase(TestEnvironmentMixin, TestCaseMixin, test.TransactionTestCase):
    """No transaction around the test, as in Djangae: inside one no task would ever be queued."""


class AppEngineDiscoverRunner(DiscoverRunner):
    """Queues tasks in memory for the whole run: no test needs an emulator."""

    def setup_test_environment(self, **kwargs: Any) -> None:
        self._queue = ExitStack()
        self._queue.enter_context(memory_queue())
        super().setup_test_environment(**kwargs)

    def teardown_test_environment(self, **kwargs: Any) -> None:
        super().teardown_test_environment(**kwargs)
        self._queue.close()
