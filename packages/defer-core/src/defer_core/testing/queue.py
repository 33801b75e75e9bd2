"""A queue in memory for a test, and `drain()`, which runs what is queued."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..config import configured, current
from ..delivery import Delivery
from ..errors import ConfigError, OptionError, SingularTaskFailure
from ..run.execute import Outcome, execute
from ..stores.memory import MemoryStore
from ..transports.memory import MemoryTransport, QueuedTask

settlers: dict[str, Callable[[], None]] = {}
"""Functions, by framework, that send what waits for commits that a test never makes (Django's TestCase)."""


@dataclass(frozen=True, kw_only=True)
class Drained:
    """The result of `drain()`."""

    done: int = 0
    """Tasks that ran to their end."""
    permanent: int = 0
    """Tasks that failed permanently."""
    retried: int = 0
    """Attempts that were repeated."""
    gave_up: int = 0
    """Tasks that failed as often as allowed, and were removed."""


def run_one(task: QueuedTask, transport: MemoryTransport) -> Outcome:
    """Deliver one task once, and remove it unless it is to be retried. An exception of the task leaves it queued."""
    delivery = Delivery(
        task_name=task.name,
        queue=task.message.routing.queue,
        retry_count=task.attempts,
        execution_count=task.attempts,
        eta=task.due,
        target="memory",
    )
    transport.retry(task)
    outcome = execute(task.message.body, delivery, shown=True)
    if outcome is not Outcome.RETRY:
        transport.remove(task)
    return outcome


def memory_transport() -> MemoryTransport:
    """Return the memory queue that is configured, or that replaces the configured one in a test. Raises ConfigError if
    there is another transport."""
    found = current().the_transport
    if not isinstance(found, MemoryTransport):
        raise ConfigError(
            f"Only the tasks of a MemoryTransport can be seen and run, and the transport is {found.name!r}."
        )
    return found


def queued(transport: MemoryTransport, queue: str | None = None) -> list[QueuedTask]:
    """Return the tasks in a memory queue, in the order in which they are due, with those that a commit would have put
    there."""
    for settle in settlers.values():
        settle()
    return transport.queued(queue)


def drain(
    transport: MemoryTransport | None = None,
    *,
    queue: str | None = None,
    max_attempts: int = 3,
    max_tasks: int = 10_000,
    on_error: str | Callable[[QueuedTask, Exception], None] = "raise",
    spared: Collection[str] = (),
) -> Drained:
    """Run the tasks of a memory queue, ETAs notwithstanding, and those that they defer, until none is left.

    A task is attempted `max_attempts` times; then its exception is raised, or (`on_error="ignore"`) the task is
    dropped, or `on_error(task, exception)` decides. The names in `spared` are left alone. Raises RuntimeError if tasks
    keep coming beyond `max_tasks`.
    """
    if on_error not in ("raise", "ignore") and not callable(on_error):
        raise OptionError(f"on_error is {on_error!r}: it must be 'raise', 'ignore' or a function.")
    transport = transport or memory_transport()
    counts = {"done": 0, "permanent": 0, "retried": 0, "gave_up": 0}
    for _ in range(max_tasks):
        tasks = [task for task in queued(transport, queue) if task.name not in spared]
        if not tasks:
            return Drained(**counts)
        # one that has failed waits for the others: they may be what it needs
        task = min(tasks, key=lambda each: each.attempts)
        counts[_attempt(task, transport, max_attempts, on_error)] += 1
    raise RuntimeError(
        f"drain() has run {max_tasks} tasks, and there are still more: do they defer each other without end?"
    )


def _attempt(task: QueuedTask, transport: MemoryTransport, max_attempts: int, on_error: Any) -> str:
    last = task.attempts + 1 >= max_attempts
    try:
        outcome = run_one(task, transport)
    except Exception as error:
        if not last:
            return "retried"
        transport.remove(task)
        if on_error == "raise":
            raise
        if callable(on_error):
            on_error(task, error)
        return "gave_up"
    if outcome is Outcome.RETRY:
        if not last:
            return "retried"
        transport.remove(task)
        failure = SingularTaskFailure(f"The task {task.name} asked {max_attempts} times to be retried.")
        if on_error == "raise":
            raise failure
        if callable(on_error):
            on_error(task, failure)
        return "gave_up"
    return "done" if outcome is Outcome.DONE else "permanent"


@contextmanager
def in_memory(**settings: Any) -> Iterator[MemoryTransport]:
    """Configure a MemoryTransport (or the given one) and a MemoryStore in a `with` block. Transactions of Django are
    joined, if its app is loaded; another store joins what it does outside tests."""
    transport = settings.pop("transport", None) or MemoryTransport()
    store = settings.pop("store", None) or MemoryStore()
    joins = ("django",) if isinstance(store, MemoryStore) and "defer_django.store" in sys.modules else ()
    given = {"transport": transport, "store": store, "joins": joins, "sweep_interval": 0.0, **settings}
    with configured(**given):
        yield transport
