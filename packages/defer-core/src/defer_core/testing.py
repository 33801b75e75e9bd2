"""What tests of users need: a store and a queue in memory, and `drain()`, which runs what is queued."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .config import configured, current
from .delivery import Delivery
from .errors import ConfigError, OptionError, SingularTaskFailure
from .execute import Outcome, execute
from .stores.memory import MemoryStore
from .transports.memory import MemoryTransport, QueuedTask

__all__ = ["Drained", "MemoryStore", "MemoryTransport", "drain", "in_memory", "run_one"]


@dataclass(frozen=True, kw_only=True)
class Drained:
    """What `drain()` did."""

    done: int = 0
    """Tasks that ran to their end."""
    permanent: int = 0
    """Tasks that failed for good."""
    retried: int = 0
    """Attempts that were repeated."""
    gave_up: int = 0
    """Tasks that failed as often as allowed, and were taken out."""


def run_one(task: QueuedTask, transport: MemoryTransport) -> Outcome:
    """Deliver one task once, and take it out unless it is to be repeated. An exception of the task leaves it queued."""
    delivery = Delivery(
        task_name=task.name,
        queue=task.message.routing.queue,
        retry_count=task.attempts,
        execution_count=task.attempts,
        eta=task.due,
        target="memory",
    )
    transport.retry(task)
    outcome = execute(task.message.body, delivery)
    if outcome is not Outcome.RETRY:
        transport.remove(task)
    return outcome


def drain(
    transport: MemoryTransport | None = None,
    *,
    queue: str | None = None,
    max_attempts: int = 3,
    max_tasks: int = 10_000,
    on_error: str | Callable[[QueuedTask, Exception], None] = "raise",
) -> Drained:
    """Run the tasks of a memory queue, ETAs notwithstanding, and those that they defer, until none is left.

    A task is tried `max_attempts` times; then its exception is raised, or (`on_error="ignore"`) the task is dropped, or
    `on_error(task, exception)` decides. Raises RuntimeError where tasks keep coming beyond `max_tasks`.
    """
    if on_error not in ("raise", "ignore") and not callable(on_error):
        raise OptionError(f"on_error is {on_error!r}: it must be 'raise', 'ignore' or a function.")
    if transport is None:
        found = current().the_transport
        if not isinstance(found, MemoryTransport):
            raise ConfigError(f"drain() runs the tasks of a MemoryTransport, and the transport is {found.name!r}.")
        transport = found
    counts = {"done": 0, "permanent": 0, "retried": 0, "gave_up": 0}
    for _ in range(max_tasks):
        tasks = transport.queued(queue)
        if not tasks:
            return Drained(**counts)
        # one that has failed waits for the others: they may be what it needs
        task = min(tasks, key=lambda each: each.attempts)
        counts[_attempt(task, transport, max_attempts, on_error)] += 1
    raise RuntimeError(
        f"drain() has run {max_tasks} tasks, and there are still more: do they defer each other for ever?"
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
        failure = SingularTaskFailure(f"The task {task.name} asked {max_attempts} times to be tried again.")
        if on_error == "raise":
            raise failure
        if callable(on_error):
            on_error(task, failure)
        return "gave_up"
    return "done" if outcome is Outcome.DONE else "permanent"


@contextmanager
def in_memory(**settings: Any) -> Iterator[MemoryTransport]:
    """Configure a MemoryTransport (or the one given) and a MemoryStore for the length of a `with` block."""
    transport = settings.pop("transport", None) or MemoryTransport()
    with configured(**{"transport": transport, "store": MemoryStore(), "sweep_interval": 0.0, **settings}):
        yield transport
