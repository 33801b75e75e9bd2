"""Tasks that fail: a line in the log for each attempt, a record for as long as the queue retries, a dead letter at the
end.

A stored task has its record already. Any other task gets a record at its first failure, with an id that is the same at
every attempt (`dead_letters.letter_id`): a task that succeeds at once costs nothing.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from .. import clock, log_fields
from ..config import Config
from ..delivery import Delivery, Ending
from ..record import State, TaskRecord, dead
from ..send import retrying
from ..stores.base import TaskStore
from ..task import RetryOptions, Routing
from ..telemetry import metrics
from ..text import one_line, traceback_of
from ..wire.decoded import DecodedTask
from ..wire.envelope import Envelope
from . import dead_letters

log = logging.getLogger("defer")

SILENCE = 86400.0
"""Seconds beyond the longest wait of its queue after which a failing task counts as dropped by it."""
LONGEST_IN_QUEUE = 62 * 86400.0
"""Seconds that a queue can hold a task: 30 days of ETA, 31 of repetitions, and one."""
UNSEEN = ("immediate", "memory")
"""Targets whose failures reach the caller that runs the tasks: their failing tasks are not kept."""
PAGE, LEASE = 20, 120.0
_room: WeakKeyDictionary[TaskStore, tuple[float, int]] = WeakKeyDictionary()
"""By store: how many more failing tasks it may keep, and until when that number is valid."""


UNHEARD = "Nothing is known of the attempt before: its process ended, or its connection was lost."
"""The error of a task at its last attempt, if no failure of an earlier one was recorded."""


def begin(task: DecodedTask, body: bytes, delivery: Delivery, config: Config) -> None:
    """Record a task as failing before its last attempt, if nothing is known of the earlier ones: this one may end its
    process as they did. Never raises."""
    if not delivery.retry_count or delivery.target in UNSEEN or _sees_to_itself(task):
        return
    try:
        store, retry = task.store or config.the_store, retrying.retry_of(task.sealed, delivery.queue, config)
        last = store is not None and _is_last(task, body, delivery, retry, config)
        if store is not None and last and not _is_known(task, body, delivery, store):
            before = replace(delivery, retry_count=delivery.retry_count - 1)
            _keep(task, body, before, UNHEARD, config, retry, last=False)
    except Exception:
        names = one_line(delivery.task_name), one_line(task.label), delivery.attempt
        log.exception("Task %s (%s) could not be recorded before its last attempt (%d).", *names)


def _is_known(task: DecodedTask, body: bytes, delivery: Delivery, store: TaskStore) -> bool:
    """Return True if the task is kept as failing; a stored task's record has been read already."""
    known = task.record or store.get(dead_letters.letter_id(body, delivery))
    return known is not None and known.state is State.FAILING


def note(
    task: DecodedTask,
    body: bytes,
    delivery: Delivery,
    error: BaseException,
    config: Config,
    *,
    quiet: bool,
    shown: bool,
) -> bool:
    """Log a failed attempt, and keep what it has shown. Return True if the task will not run again by itself. Never
    raises: the queue must get its answer in any case.

    `quiet`: the task asked to be retried; `shown`: the caller logs the traceback.
    """
    retry, last = RetryOptions(), False
    try:
        retry = retrying.retry_of(task.sealed, delivery.queue, config)
        last = _is_last(task, body, delivery, retry, config)
        _keep(task, body, delivery, traceback_of(error), config, retry, last=last)
    except Exception:
        names = one_line(delivery.task_name), one_line(task.label), delivery.attempt
        log.exception("Task %s (%s) failed at attempt %d, and that could not be recorded.", *names)
    with suppress(AttributeError):  # an exception with slots is logged twice
        error._defer_is_shown = shown  # type: ignore[attr-defined]
        error._defer_is_logged = True  # type: ignore[attr-defined]
    # at the attempts between the first and the last a traceback would say the same
    traceback = not shown and (last or (not delivery.retry_count and not quiet))
    level, over = logging.ERROR if last else logging.WARNING, last and not _sees_to_itself(task)
    ending = Ending.DEAD if over else Ending.RETRY if quiet else Ending.FAILED
    said: dict[str, Any] = {"level": level, "reason": "gave up" if over else "", "of": retrying.limit(retry)}
    log_attempt(task, delivery, "failed", error, ending=ending, exc_info=traceback, **said)
    return over


def log_success(task: DecodedTask, delivery: Delivery) -> None:
    """Log one line for an attempt that succeeded, as information."""
    if log.isEnabledFor(logging.INFO):
        label = task.label
        extra = log_fields.of_attempt(delivery, Ending.DONE, function=label)
        said = one_line(delivery.task_name), one_line(label), delivery.attempt, extra["duration"]
        text = "Task %s (%s) succeeded at attempt %d in %.3f s"
        # made by hand: who has called this says nothing, and costs as much as the rest
        log.handle(log.makeRecord(log.name, logging.INFO, __file__, 0, text, said, None, extra=extra))


def log_attempt(
    task: DecodedTask,
    delivery: Delivery,
    what: str,
    error: BaseException,
    *,
    ending: Ending,
    level: int,
    reason: str = "",
    of: int | None = None,
    exc_info: bool,
) -> None:
    """Log one line for an attempt that failed, with or without the traceback; `reason` is why the task is dead. The
    line is bounded, and fit for every stream."""
    if not log.isEnabledFor(level):
        return
    attempt, told = f"{delivery.attempt} of {of}" if of else delivery.attempt, _in_a_line(error)
    said = one_line(delivery.task_name), one_line(task.label), what, attempt, told
    extra = log_fields.of_attempt(delivery, ending, function=task.label, reason=reason, error=told)
    exc = (type(error), error, error.__traceback__) if exc_info else None
    text = "Task %s (%s) %s at attempt %s: %s"
    record = log.makeRecord(log.name, level, __file__, 0, text, said, exc, extra=extra)
    if exc_info:
        record.exc_text = traceback_of(error).rstrip()
    log.handle(record)


def _in_a_line(error: BaseException) -> str:
    try:
        return one_line(repr(error))
    except Exception:
        return type(error).__name__


def _sees_to_itself(task: DecodedTask) -> bool:
    """Return True for a task of an iteration, which the sweep requeues once its queue has dropped it."""
    return getattr(task.func, "sees_to_itself", False)


def _is_last(task: DecodedTask, body: bytes, delivery: Delivery, retry: RetryOptions, config: Config) -> bool:
    if delivery.retry_count is None:
        return False

    def age() -> float:
        """Return the seconds since the first known failure."""
        store = task.store or config.the_store
        known = store and store.get(task.record.id if task.record else dead_letters.letter_id(body, delivery))
        return clock.now() - ((known and known.first_attempt) or delivery.started)

    return retrying.is_last(retry, delivery.retry_count + 1, age)


def is_last_of(sealed: Envelope | None, delivery: Delivery, config: Config) -> bool:
    """Return True for the last attempt at a task that could not be decoded, whatever is known of its envelope."""
    if delivery.retry_count is None:
        return False
    retry = retrying.retry_of(sealed, delivery.queue, config)
    return retrying.is_last(retry, delivery.retry_count + 1, lambda: 0.0)


def _keep(
    task: DecodedTask,
    body: bytes,
    delivery: Delivery,
    error: str,
    config: Config,
    retry: RetryOptions,
    *,
    last: bool,
) -> None:
    store, now = task.store or config.the_store, clock.now()
    unseen = delivery.target in UNSEEN and not last
    if store is None or delivery.retry_count is None or unseen or _sees_to_itself(task):
        return
    said: dict[str, Any] = {
        **(dead("gave up") if last else {"state": State.FAILING, "reason": ""}),
        "attempts": delivery.attempt,
        "last_error": error,
        "last_attempt": now,
        "due": now + retrying.longest_wait(retry) + SILENCE,
    }
    if task.record is not None:
        first = dead_letters.first_attempt(task.record, delivery)
        dead_letters.write_over(task.record, store, first_attempt=first, **said)
    else:
        own = retrying.own_of(task.sealed)
        record = TaskRecord(
            id=dead_letters.letter_id(body, delivery),
            envelope=dead_letters.bare(body),
            routing=Routing(queue=delivery.queue or "default", name=delivery.task_name, retry=own),
            created=task.sealed.created or now,
            first_attempt=delivery.started,
            label=task.label,
            **said,
        )
        dead_letters.keep(record, store, may_add=lambda: last or _has_room(store, config))
    if last:
        metrics.died(delivery.queue, task.label, "gave up")


def _has_room(store: TaskStore, config: Config) -> bool:
    """Return True if one more failing task may be kept. They are counted once a minute."""
    until, room = _room.get(store, (0.0, 0))
    if clock.now() >= until:
        until, room = clock.now() + dead_letters.FULL_FOR, config.max_failing - store.count(State.FAILING)
        if room <= 0:
            log.warning(
                "The %s store has %d failing tasks (max_failing): further ones are only logged.",
                store.name,
                config.max_failing,
            )
    _room[store] = until, room - 1
    return room > 0


def forget(body: bytes, delivery: Delivery, config: Config) -> None:
    """Delete the record of a task that has failed before and has now succeeded. Never raises."""
    if not delivery.retry_count or delivery.target in UNSEEN:
        return
    try:
        if config.the_store is not None:
            config.the_store.delete([dead_letters.letter_id(body, delivery)])
    except Exception:
        names = one_line(delivery.task_name), delivery.attempt
        log.exception("Task %s succeeded at attempt %d, and its record as failing could not be deleted.", *names)


def give_up(store: TaskStore, config: Config, time_left: Callable[[], bool]) -> Counter[str]:
    """Make dead letters of tasks that their queue must have dropped silently. They are never sent."""
    count = Counter[str]()
    for state, ago in ((State.FAILING, 0.0), (State.SENT, LONGEST_IN_QUEUE)):
        lease = partial(store.lease_due, limit=PAGE, seconds=ago + LEASE, state=state)
        while time_left() and (records := lease(now=clock.now() - ago)):
            for each in records:
                attempted = each.last_attempt or clock.now()  # the retention counts from here
                if store.mark(each.id, lease=each.lease, last_attempt=attempted, **dead("silent")):
                    metrics.died(each.routing.queue, each.label, "silent")
                    count["silent"] += 1
    return count
