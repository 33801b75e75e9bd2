"""How a queue repeats a task, as far as this process knows, and which attempt is its last."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from ..config import Config
from ..config.queues import declared
from ..errors import OptionError
from ..task import RetryOptions, Routing
from ..wire.envelope import Envelope
from .options import retry_options

HEADER = "defer-retry"
"""The key in an envelope's `trace` whose value is the retry options that the queue was given for this task."""
LONGEST_WAIT = 3600.0
"""Seconds that Cloud Tasks waits between two attempts at most, by default."""


def outgoing(retry: RetryOptions | None) -> dict[str, str]:
    """Return the entry of `trace` with a task's own retry options; empty if it has none."""
    return {} if retry is None else {HEADER: json.dumps(_set(retry))}


def own_of(sealed: Envelope | None) -> RetryOptions | None:
    """Return the retry options that travelled with a task, else None; None also if they make no sense."""
    if sealed is None or HEADER not in sealed.trace:
        return None
    try:
        return retry_options(json.loads(sealed.trace[HEADER]))
    except (ValueError, OptionError):  # an unsigned body may be from anyone
        return None


def retry_of(sealed: Envelope | None, queue: str, config: Config) -> RetryOptions:
    """Return how the queue repeats a task: its own options, over those of its queue."""
    return _over_queue(own_of(sealed), queue, config)


def attempt_limit(routing: Routing, config: Config) -> int | None:
    """Return the number of attempts after which the queue of a task may give up, as far as this process knows."""
    return limit(_over_queue(routing.retry, routing.queue, config))


def _over_queue(own: RetryOptions | None, queue: str, config: Config) -> RetryOptions:
    known = _retry_of_queue(queue or "default", config)
    return known if own is None else replace(known, **_set(own))


def _retry_of_queue(queue: str, config: Config) -> RetryOptions:
    """Return what the transport knows for certain, else what is declared."""
    known = None if config.transport is None else config.the_transport.retry_of(queue)
    if known is not None:
        return known
    said = config.derive(declared).get(queue)
    return RetryOptions() if said is None else said.retry


def _set(retry: RetryOptions) -> dict[str, Any]:
    return {name: value for name, value in asdict(retry).items() if value is not None}


def limit(retry: RetryOptions) -> int | None:
    """Return the number of attempts after which a queue may give up; None if there is none, or if it is unknown."""
    return retry.max_attempts if retry.max_attempts and retry.max_attempts > 0 else None


def is_last(retry: RetryOptions, attempt: int, age: Callable[[], float]) -> bool:
    """Return True if a queue does not retry after this attempt: once every limit that is set has been reached. `age`
    gives the seconds since the first attempt; alone it proves nothing, because only the queue knows when that was."""
    most = limit(retry)
    return most is not None and attempt >= most and (not retry.max_retry_duration or age() >= retry.max_retry_duration)


def longest_wait(retry: RetryOptions) -> float:
    """Return the seconds within which a queue that goes on has tried again."""
    return max(retry.max_backoff or LONGEST_WAIT, retry.min_backoff or 0.0)
