"""`djangae.tasks.test`: tests that run what is queued, in this process, without an emulator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from typing import Any

from django.test import SimpleTestCase

from defer_core import current_delivery
from defer_core.config import Config, configured, current
from defer_core.errors import ConfigError, SingularTaskFailure
from defer_core.testing import MemoryTransport, drain
from defer_core.transports.memory import QueuedTask
from defer_iteration.context import watching


class TaskFailedBehaviour:
    """What `process_task_queues()` does about a task that fails."""

    DO_NOTHING = 0
    """Go on with the other tasks; the failed one is dropped."""
    RETRY_TASK = 1
    """Run it again, `max_task_retry_count` times at most."""
    RAISE_ERROR = 2
    """Raise TaskFailedError."""


class TaskFailedError(Exception):
    """A task has failed. `original_exception` is what it raised, and the cause of this."""

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
    """Queue tasks in memory for the length of a `with` block; all else is as settings say."""
    from defer_django.conf import from_settings

    said = from_settings()
    settings = {each.name: getattr(said, each.name) for each in fields(Config)}
    transport = MemoryTransport()
    with configured(**{**settings, "transport": transport, "transport_options": {}, "sweep_interval": 0.0}):
        yield transport


def the_queue() -> MemoryTransport:
    """The memory queue of this test. Raises ConfigError where there is none."""
    transport = current().the_transport
    if not isinstance(transport, MemoryTransport):
        raise ConfigError(
            "There is no memory queue to look into: the test case is to be a djangae.test.TestCase, the runner "
            'djangae.test.AppEngineDiscoverRunner, or the tests\' settings DEFER = {"TRANSPORT": "memory"}.'
        )
    return transport


def get_task_count(queue_name: str | None = None) -> int:
    """How many tasks are in a queue, or in all."""
    return len(the_queue().queued(queue_name))


def flush_task_queues(queue_name: str | None = None) -> None:
    """Take all tasks out of a queue, or of all."""
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
    """Run the tasks of a queue, or of all, and those that they defer, ETAs notwithstanding, until none is left.

    Raises TaskFailedError for a task that fails (`RAISE_ERROR`) or has failed `max_task_retry_count` times
    (`RETRY_TASK`), and, under either, once one row of an iteration has raised that often.
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


class _RowFailed(BaseException):  # no Exception: the run path is to let it through, whatever may be tried again
    """A row of an iteration has raised as often as it may."""

    def __init__(self, task_name: str, error: Exception) -> None:
        super().__init__(task_name, error)
        self.task_name, self.error = task_name, error


def _row_raised(error: Exception, calls: int, *, limit: int, ignoring: bool) -> None:
    """Let the exception of a row out of its shard once the limit is reached."""
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
    """Queues tasks in memory for each test, and has the methods that run and count them."""

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
        """How many tasks are in a queue, or in all."""
        return get_task_count(queue_name)

    def flush_task_queues(self, queue_name: str | None = None) -> None:
        """Take all tasks out of a queue, or of all."""
        flush_task_queues(queue_name)

    def assertNumTasksEquals(self, num: int, queue_name: str | None = None) -> None:
        """Fail unless there are `num` tasks in a queue, or in all."""
        self.assertEqual(num, self.get_task_count(queue_name))  # noqa: PT009


def __getattr__(name: str) -> Any:
    """The test cases and the runner, which are built on this module and found here, too."""
    if name not in ("AppEngineDiscoverRunner", "TestCase", "TransactionTestCase"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import test_cases

    return getattr(test_cases, name)
