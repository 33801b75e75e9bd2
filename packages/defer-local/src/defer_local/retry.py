"""How a failing task is repeated, as Cloud Tasks does it."""

from __future__ import annotations

from dataclasses import fields, replace

from defer_core.spi import RetryOptions

from .queued import QueuedTask

DEFAULTS = RetryOptions(max_attempts=100, max_retry_duration=0.0, min_backoff=0.1, max_backoff=3600.0, max_doublings=16)
"""The options of a queue that has none of its own."""
ABSENT_INTERVAL = 0.5
"""Seconds between two connections to a server that does not listen."""


def merged(own: RetryOptions | None, defaults: RetryOptions) -> RetryOptions:
    """Complete a task's own options with those of its queue."""
    if own is None:
        return defaults
    given = {each.name: getattr(own, each.name) for each in fields(RetryOptions)}
    return replace(defaults, **{name: value for name, value in given.items() if value is not None})


def interval(retry: RetryOptions, failures: int) -> float:
    """Return the seconds to wait after a number of failures (at least 1): they double, then grow linearly, up to the
    longest. With 10 s, 300 s and 3 doublings: 10, 20, 40, 80, 160, 240, 300, 300."""
    first, longest, doublings = retry.min_backoff or 0.0, retry.max_backoff or 0.0, retry.max_doublings or 0
    doubled = first * 2.0 ** min(failures - 1, doublings, 64)
    return min(doubled * max(1, failures - doublings), longest)


def gives_up(task: QueuedTask, retry: RetryOptions, now: float) -> bool:
    """Tell whether a failed task has reached every limit that is set, so that it is given up."""
    limits = []
    if retry.max_attempts is not None and retry.max_attempts > 0:
        limits.append(task.attempts >= retry.max_attempts)
    if retry.max_retry_duration:
        limits.append(now - (task.first_attempt or now) >= retry.max_retry_duration)
    return bool(limits) and all(limits)


def failed(task: QueuedTask, status: int | None, now: float, defaults: RetryOptions = DEFAULTS) -> QueuedTask | None:
    """Return a task after a failed attempt, of which `status` is None without an answer; None if it is given up."""
    retry = merged(task.routing.retry, defaults)
    if gives_up(task, retry, now):
        return None
    return replace(counted(task, status, now), due=now + interval(retry, task.attempts))


def interrupted(task: QueuedTask, now: float) -> QueuedTask:
    """Return a task whose dispatcher is gone: it may have run, and is retried at once, regardless of limits."""
    return replace(counted(task, None, now), due=now)


def absent(task: QueuedTask, now: float) -> QueuedTask:
    """Return a task whose server did not listen: it has certainly not run, so this was no attempt."""
    return replace(task, attempts=task.attempts - 1, due=now + ABSENT_INTERVAL, owner=None)


def counted(task: QueuedTask, status: int | None, now: float) -> QueuedTask:
    """Count an attempt for the headers of the next. No answer is 0 for App Engine targets and 504 for HTTP targets;
    these do not count a 5xx as an execution either."""
    answered = status is not None
    if task.is_http:
        counts, previous, reason = answered and status < 500, status or 504, ""  # type: ignore[operator]
    else:
        counts, previous, reason = answered, status or 0, "App Error" if answered else "Instance Unavailable"
    return replace(
        task,
        responses=task.responses + answered,
        executions=task.executions + counts,
        previous_response=previous,
        retry_reason=reason,
        answered=now if answered else None,
        forced=False,
        owner=None,
    )
