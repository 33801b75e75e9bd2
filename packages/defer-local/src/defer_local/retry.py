"""How a failing task is repeated, as Cloud Tasks does it."""

from __future__ import annotations

from dataclasses import fields, replace

from defer_core.task import RetryOptions

from .queued import QueuedTask

DEFAULTS = RetryOptions(max_attempts=100, max_retry_duration=0.0, min_backoff=0.1, max_backoff=3600.0, max_doublings=16)
"""What a queue has that was told nothing else."""
ABSENT_INTERVAL = 0.5
"""Seconds between two tries at a server that is not there."""


def merged(own: RetryOptions | None, defaults: RetryOptions) -> RetryOptions:
    """A task's own settings, and for those that it leaves open its queue's."""
    if own is None:
        return defaults
    given = {each.name: getattr(own, each.name) for each in fields(RetryOptions)}
    return replace(defaults, **{name: value for name, value in given.items() if value is not None})


def interval(retry: RetryOptions, failures: int) -> float:
    """Seconds to wait after the given number of failures (at least 1): doubling, then growing linearly, up to the
    longest: with 10 s, 300 s and 3 doublings 10, 20, 40, 80, 160, 240, 300, 300."""
    first, longest, doublings = retry.min_backoff or 0.0, retry.max_backoff or 0.0, retry.max_doublings or 0
    doubled = first * 2.0 ** min(failures - 1, doublings, 64)
    return min(doubled * max(1, failures - doublings), longest)


def gives_up(task: QueuedTask, retry: RetryOptions, now: float) -> bool:
    """Whether a task that has failed is not tried again: once every limit that is set has been reached."""
    limits = []
    if retry.max_attempts is not None and retry.max_attempts > 0:
        limits.append(task.attempts >= retry.max_attempts)
    if retry.max_retry_duration:
        limits.append(now - (task.first_attempt or now) >= retry.max_retry_duration)
    return bool(limits) and all(limits)


def failed(task: QueuedTask, status: int | None, now: float, defaults: RetryOptions = DEFAULTS) -> QueuedTask | None:
    """A task after an attempt that failed with an HTTP status, or (None) no answer; None where the queue gives up."""
    retry = merged(task.routing.retry, defaults)
    if gives_up(task, retry, now):
        return None
    return replace(counted(task, status, now), due=now + interval(retry, task.attempts))


def interrupted(task: QueuedTask, now: float) -> QueuedTask:
    """A task whose dispatcher went away: it may have run, and is tried again at once, whatever the limits say."""
    return replace(counted(task, None, now), due=now)


def absent(task: QueuedTask, now: float) -> QueuedTask:
    """A task whose server was not there: it has certainly not run, so that was no attempt."""
    return replace(task, attempts=task.attempts - 1, due=now + ABSENT_INTERVAL, owner=None)


def counted(task: QueuedTask, status: int | None, now: float) -> QueuedTask:
    """What the headers of the next attempt are to say. No answer is a 0 to App Engine targets, a 504 to HTTP
    targets; these do not count 5xx as executions either."""
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
