"""Resource names: `projects/P/locations/L/queues/Q/tasks/T`."""

from __future__ import annotations

import re

from .answers import invalid

_PARENT = re.compile(r"projects/[^/]+/locations/[^/]+\Z")
_QUEUE = re.compile(r"projects/[^/]+/locations/[^/]+/queues/[A-Za-z0-9-]{1,100}\Z")
_TASK_ID = re.compile(r"[A-Za-z0-9_-]{1,500}\Z")


def check_parent(parent: str) -> str:
    """Return the name of a location. Raises ApiError for any other."""
    if not _PARENT.match(parent):
        raise invalid('Parent name must be formatted: "projects/<PROJECT_ID>/locations/<LOCATION_ID>".')
    return parent


def check_queue(name: str) -> str:
    """Return the name of a queue. Raises ApiError for any other."""
    if not _QUEUE.match(name):
        raise invalid(
            'Queue name must be formatted: "projects/<PROJECT_ID>/locations/<LOCATION_ID>/queues/<QUEUE_ID>".'
        )
    return name


def split_task(name: str) -> tuple[str, str]:
    """Split the name of a task into its queue's and its short one. Raises ApiError."""
    queue, separator, task = name.partition("/tasks/")
    if not separator:
        raise invalid(
            'Task name must be formatted: "projects/<PROJECT_ID>/locations/<LOCATION_ID>/queues/<QUEUE_ID>'
            '/tasks/<TASK_ID>".'
        )
    check_queue(queue)
    if not _TASK_ID.match(task):
        raise invalid(
            f'Task ID "{task}" can contain only letters ([A-Za-z]), numbers ([0-9]), hyphens (-), or underscores (_). '
            "Task ID must between 1 and 500 characters."
        )
    return queue, task


def queue_named(name: str, parent: str) -> str:
    """Complete the short name of a queue in `parent`; return a full name as it is. Raises ApiError."""
    return check_queue(name if "/" in name else f"{check_parent(parent)}/queues/{name}")


def location_of(queue: str) -> str:
    """Return the name of a queue's location."""
    return queue.rpartition("/queues/")[0]


def project_of(queue: str) -> str:
    """Return the id of a queue's project."""
    return queue.split("/")[1]
