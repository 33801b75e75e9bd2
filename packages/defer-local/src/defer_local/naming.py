"""What the log calls a task."""

from __future__ import annotations

from defer_core.spi import callable_in, one_line

from .queued import QueuedTask


def attempt_of(task: QueuedTask) -> str:
    """Name a task, what it calls, and its attempt, for a line of the log."""
    called = callable_in(task.body)
    name = f"{task.name} ({called})" if called else task.name
    return f"Task {one_line(name)} in {one_line(task.queue)}: attempt {task.attempts}"
