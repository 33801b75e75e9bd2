"""The run path: a body is unframed, verified, decoded and called; the outcome says what to answer the queue."""

from __future__ import annotations

import logging
import sys
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from typing import Any

from .. import clock, log_fields
from ..config import Config, current
from ..delivery import Delivery, Ending, running
from ..errors import (
    DecodeError,
    ExpiredError,
    NotYetReadableError,
    PermanentTaskFailure,
    SignatureError,
    SingularTaskFailure,
    StoreNotConfiguredError,
    UnknownKeyError,
    UnknownVersionError,
)
from ..logs import logger
from ..record import TaskRecord
from ..stores.base import TaskStore
from ..telemetry import spans
from ..text import one_line
from ..upkeep import dead_letters, failing, sweep  # fmt: skip
from ..wire import binding, decoder, envelope, frame, legacy
from ..wire.decoded import DecodedTask
from . import attempts, awaiting, stopping

log = logger("defer")

CLOCK_SKEW = 300.0
"""Seconds that the clocks of two machines may differ by."""


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
            outcome = _unread(body, delivery, error, config)
            attempts.ended(delivery, _UNREAD_ENDINGS[outcome], error=error, span=span)
        return outcome
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
_UNREAD_ENDINGS = {Outcome.RETRY: Ending.RETRY, Outcome.PERMANENT: Ending.DEAD}


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


def _unread(body: bytes, delivery: Delivery, error: NotYetReadableError | DecodeError, config: Config) -> Outcome:
    if isinstance(error, NotYetReadableError):
        return _wait(body, delivery, error, config)
    extra = log_fields.of_attempt(delivery, Ending.DEAD, reason=error.reason, error=str(error))
    log.error("Task %s in %s cannot be read (attempt %d): %s", *_names(delivery), one_line(error), extra=extra)
    verified = _verifies(body, delivery, config)
    _keep_unread(body, delivery, error, config, reason=error.reason, verified=verified)
    return Outcome.PERMANENT


def _names(delivery: Delivery) -> tuple[str, str, int]:
    """Return the task, the queue and the number of an attempt, for a line of the log."""
    return one_line(delivery.task_name), one_line(delivery.queue), delivery.attempt


def _verifies(body: bytes, delivery: Delivery, config: Config) -> bool:
    """Return True if an unreadable body can be trusted: by its envelope, or (another library's) by the
    authenticator."""
    if not frame.is_framed(body):
        return not delivery.require_signature and (config.signer is None or config.accept_legacy_pickles)
    try:
        envelope.decode(frame.unwrap(body), config.signer, require_signature=delivery.require_signature)
    except (DecodeError, NotYetReadableError):
        return False
    return True


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


def decode_body(body: bytes, delivery: Delivery, config: Config) -> DecodedTask | None:
    """Decode a body; return None if its stored payload is gone because the task was done. Raises DecodeError or
    NotYetReadableError."""
    if not frame.is_framed(body):
        return _decode_legacy(body, delivery, config)
    sealed = envelope.decode(frame.unwrap(body), config.signer, require_signature=delivery.require_signature)
    if sealed.expires is not None and clock.now() > sealed.expires:
        raise ExpiredError
    binding.check(sealed, delivery, config)
    if sealed.claim_check is not None:
        return _decode_stored(sealed.claim_check, sealed, body, delivery, config)
    return _decode(sealed.payload or b"", sealed, config)


def _decode_stored(
    check: envelope.ClaimCheck, sealed: envelope.Envelope, body: bytes, delivery: Delivery, config: Config
) -> DecodedTask | None:
    store = config.store_named(check.store, check.alias)
    if store is None:
        where = f"{check.store!r} {check.alias!r}".replace(" ''", "")
        raise StoreNotConfiguredError(f"The task's payload is in the store {where}, which is not configured here.")
    record = store.get(check.key)
    if record is None or record.payload is None:
        _missing(check, sealed, body, store, delivery, config)
        return None
    try:
        check.check(record.payload)
        return _decode(record.payload, sealed, config, record, store)
    except (DecodeError, NotYetReadableError) as error:
        if record.envelope == dead_letters.bare(body):  # else another task has made a claim check of its own
            error.kept = record, store
        raise


def _missing(
    check: envelope.ClaimCheck,
    sealed: envelope.Envelope,
    body: bytes,
    store: TaskStore,
    delivery: Delivery,
    config: Config,
) -> None:
    """Handle a claim check without a record. One that may not be there yet raises NotYetReadableError, to be retried
    for the grace; a lost one becomes a dead letter; otherwise the task was done before."""
    if _within_grace(sealed.created, delivery, config) and not failing.is_last_of(sealed, delivery, config):
        raise NotYetReadableError(f"The payload {check.key} is not in the {store.name} store.")
    if delivery.retry_count == 0:
        error = f"Its payload {one_line(check.key)} is not in the {store.name} store."
        extra = log_fields.of_attempt(delivery, Ending.DEAD, reason="missing payload", error=error)
        log.error("Task %s in %s is lost (attempt %d): %s", *_names(delivery), error, extra=extra)
        dead_letters.keep_body(body, delivery, None, config, reason="missing payload", store=store)
        return
    extra = log_fields.of_attempt(delivery, Ending.DONE)
    log.info("Task %s in %s was done before (attempt %d): there is nothing to do.", *_names(delivery), extra=extra)


def _decode(
    payload: bytes,
    sealed: envelope.Envelope,
    config: Config,
    record: TaskRecord | None = None,
    store: TaskStore | None = None,
) -> DecodedTask:
    func, args, kwargs = decoder.unpack_call(payload, config)
    return DecodedTask(func=func, args=args, kwargs=kwargs, sealed=sealed, record=record, store=store)


def _decode_legacy(body: bytes, delivery: Delivery, config: Config) -> DecodedTask:
    """Decode a pickled triple of Google's deferred or of Djangae."""
    if not config.accept_legacy_pickles or not body:
        raise DecodeError("The body is not a task of defer. (Pickles of older libraries need `accept_legacy_pickles`.)")
    if delivery.require_signature:
        raise SignatureError("This authenticator needs a signed task, and pickles of older libraries are not.")
    func, args, kwargs = legacy.load(body, config.policy)
    return DecodedTask(func=func, args=args, kwargs=kwargs, sealed=envelope.Envelope())


def _wait(body: bytes, delivery: Delivery, error: NotYetReadableError, config: Config) -> Outcome:
    """Retry an unreadable task for the grace, as long as its queue does; then make it a dead letter."""
    created = envelope.created_at(frame.unwrap(body)) if frame.is_framed(body) else None
    last = failing.is_last_of(dead_letters.sealed_of(body, config), delivery, config)
    if _within_grace(created, delivery, config) and not last:
        extra = log_fields.of_attempt(delivery, Ending.RETRY, error=str(error))
        log.warning(
            "Task %s in %s cannot be read yet (attempt %d): %s", *_names(delivery), one_line(error), extra=extra
        )
        return Outcome.RETRY
    until = "this was its last attempt" if last else "its grace is over"
    extra = log_fields.of_attempt(delivery, Ending.DEAD, reason="unreadable", error=str(error))
    said = *_names(delivery), until, one_line(error)
    log.error("Task %s in %s cannot be read (attempt %d), and %s: %s", *said, extra=extra)
    verified = not isinstance(error, UnknownKeyError | UnknownVersionError)
    _keep_unread(body, delivery, error, config, reason="unreadable", verified=verified)
    return Outcome.PERMANENT


def _keep_unread(
    body: bytes,
    delivery: Delivery,
    error: DecodeError | NotYetReadableError,
    config: Config,
    *,
    reason: str,
    verified: bool,
) -> None:
    if error.kept is not None:
        record, store = error.kept
        dead_letters.make_dead(record, store, delivery, error, reason=reason)
    else:
        dead_letters.keep_body(body, delivery, error, config, reason=reason, verified=verified)


def _within_grace(created: float | None, delivery: Delivery, config: Config) -> bool:
    """Return True within the grace, counted from the later of creation and ETA. A time in the future is not believed,
    and a body without any time has no grace."""
    now = clock.now()
    since = max((each for each in (created, delivery.eta) if each and each <= now + CLOCK_SKEW), default=0.0)
    return now - since <= config.grace
