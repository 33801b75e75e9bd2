"""The run path: a body is unframed, verified, decoded and called; the outcome says what to answer the queue."""

from __future__ import annotations

import logging
import sys
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from typing import Any

from .. import clock
from ..config import Config, current
from ..delivery import Delivery, Ending, running
from ..errors import DecodeError, NotYetReadableError, PermanentTaskFailure, SingularTaskFailure
from ..telemetry import spans
from ..upkeep import dead_letters, failing, sweep  # fmt: skip
from ..wire.decoded import DecodedTask
from . import attempts, awaiting, stopping, unread
from .decode import decode_body


class Outcome(StrEnum):
    """The outcome of a delivery."""

    DONE = "done"
    """It ran, or there was nothing to do."""
    RETRY = "retry"
    """The queue should deliver it again, without an error being logged."""
    PERMANENT = "permanent"
    """It will never run; what can be kept of it is a dead letter."""


def execute(body: bytes, delivery: Delivery, returned: list[Any] | None = None, *, shown: bool = False) -> Outcome:
    """Run one body. Exceptions of the task propagate, except the two failures, and the queue should retry. Each failure
    is logged, the first and the last with their tracebacks, unless the caller logs those (`shown`). What the callable
    returned is appended to `returned`."""
    config = current()
    try:
        task = decode_body(body, delivery, config)
    except (NotYetReadableError, DecodeError) as error:
        with _span(body, delivery, config) as span:
            ending = unread.note(body, delivery, error, config)
            attempts.ended(delivery, ending, error=error, span=span)
        return Outcome.RETRY if ending is Ending.RETRY else Outcome.PERMANENT
    if task is None:
        attempts.ended(delivery, Ending.DONE)
        return Outcome.DONE
    try:
        with _span(body, delivery, config, task) as span:
            outcome = _run(task, body, delivery, config, returned, span, shown=shown)
    except Exception:
        if delivery.target not in failing.UNSEEN:  # else the caller may have a transaction, which is broken now
            sweep.after_task(config)
        raise
    sweep.after_task(config)
    return outcome


_NO_SPAN = nullcontext()


def _span(
    body: bytes, delivery: Delivery, config: Config, task: DecodedTask | None = None
) -> AbstractContextManager[Any]:
    """Return the span of an attempt; of one without a `task`, whose body could not be read, with its trace if the body
    verifies. Without OpenTelemetry it is None."""
    if not spans.is_loaded():
        return _NO_SPAN
    sealed = dead_letters.sealed_of(body, config) if task is None else task.sealed
    return spans.processing(
        sealed.trace if sealed else {},
        delivery.queue,
        task.label if task else "",
        name=delivery.task_name,
        size=len(body),
        attempt=delivery.attempt,
    )


def _run(
    task: DecodedTask,
    body: bytes,
    delivery: Delivery,
    config: Config,
    returned: list[Any] | None,
    span: Any,
    *,
    shown: bool,
) -> Outcome:
    token = running.set(delivery.with_deadline(task.sealed.deadline))
    failing.begin(task, body, delivery, config)
    began = clock.now()
    try:
        result = _call(task)
    except BaseException as error:
        took = clock.since(began)
        outcome, ending = _raised(task, body, delivery, error, config, shown=shown)
        attempts.ended(delivery, ending, task=task, duration=took, error=error, span=span)
        if outcome is None:
            raise
        return outcome
    else:
        attempts.ended(delivery, Ending.DONE, task=task, duration=clock.since(began), span=span)
    finally:
        running.reset(token)
    if returned is not None:
        returned.append(result)
    if task.record is not None and task.store is not None:
        task.store.delete([task.record.id])
    else:
        failing.forget(body, delivery, config)
    failing.log_success(task, delivery)
    return Outcome.DONE


def _raised(
    task: DecodedTask, body: bytes, delivery: Delivery, error: BaseException, config: Config, *, shown: bool
) -> tuple[Outcome | None, Ending]:
    """Keep and log what a task has raised. Return the outcome, None for an exception that is to propagate; and how the
    attempt has ended."""
    if _is_failure(error, PermanentTaskFailure):
        _fail_for_good(task, body, delivery, error, config)
        return Outcome.PERMANENT, Ending.DEAD
    if stopping.asked and not isinstance(error, Exception):  # it may be the process ending
        return None, Ending.RETRY
    asked = _is_failure(error, SingularTaskFailure)
    over = failing.note(task, body, delivery, error, config, quiet=asked, shown=shown and not asked)
    if asked:
        return Outcome.RETRY, Ending.DEAD if over else Ending.RETRY
    return None, Ending.DEAD if over else Ending.FAILED


def _call(task: DecodedTask) -> Any:
    """Return the result of the call. An exit in it ends only the attempt, unless the process was asked to end."""
    try:
        return awaiting.finished(task.func(*task.args, **task.kwargs))
    except SystemExit as error:
        raise stopping.failure_of(error)


def _fail_for_good(task: DecodedTask, body: bytes, delivery: Delivery, error: BaseException, config: Config) -> None:
    said: dict[str, Any] = {"level": logging.ERROR, "ending": Ending.DEAD, "reason": "permanent"}
    failing.log_attempt(task, delivery, "failed for good", error, exc_info=True, **said)
    if task.record is not None and task.store is not None:
        dead_letters.make_dead(task.record, task.store, delivery, error)
    else:
        dead_letters.keep_body(body, delivery, error, config, reason="permanent", label=task.label)


def _is_failure(error: BaseException, ours: type[Exception]) -> bool:
    """Return True for our failure, or for the SDK's of the same name, if the SDK is loaded."""
    sdk = sys.modules.get("google.appengine.ext.deferred.deferred")
    theirs = getattr(sdk, ours.__name__, None)
    return isinstance(error, ours) or (theirs is not None and isinstance(error, theirs))
