"""Resource names: `projects/P/locations/L/queues/Q/tasks/T`."""

from __future__ import annotations

import re

from .answers import invalid

_PARENT = re.compile(r"projects/[^/]+/locations/[^/]+\Z")
_QUEUE = re.compile(r"projects/[^/]+/locations/[^/]+/queues/[A-Za-z0-9-]{1,100}\Z")
_TASK_ID = re.compile(r"[A-Za-z0-9_-]{1,500}\Z")


def check_parent(parent: str) -> str:
    """The name of a location. Raises ApiError."""
    if not _PARENT.match(parent):
        raise invalid('Parent name must be formatted: "projects/<PROJECT_ID>/locations/<LOCATION_ID>".')
    return parent


def check_queue(name: str) -> str:
    """The name of a queue. Raises ApiError."""
    if not _QUEUE.match(name):
        raise invalid(
            'Queue name must be formatted: "projects/<PROJECT_ID>/locations/<LOCATION_ID>/queues/<QUEUE_ID>".'
        )
    return name


def split_task(name: str) -> tuple[str, str]:
    """The queue's name and the task's short one. Raises ApiError."""
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


def location_of(queue: str) -> str:
    """The name of a queue's location."""
    return queue.rpartition("/queues/")[0]


def project_of(queue: str) -> str:
    """The id of a queue's project."""
    return queue.split("/")[1]
