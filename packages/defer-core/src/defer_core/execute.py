"""The run path: a body is unframed, verified, decoded and called; the outcome says what to answer the queue."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from . import callables, clock, codec, dead, envelope, frame, legacy, sweep, tracing
from .config import Config, current
from .delivery import DEFAULT_DEADLINE, Delivery, running
from .errors import (
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
from .frozen import made
from .record import TaskRecord
from .stores.base import TaskStore

log = logging.getLogger("defer")

CLOCK_SKEW = 300.0
"""Seconds that the clocks of two machines may differ by."""


class Outcome(StrEnum):
    """What became of a delivery."""

    DONE = "done"
    """It ran, or there was nothing to do."""
    RETRY = "retry"
    """The queue is to deliver it again, without an error being logged."""
    PERMANENT = "permanent"
    """It will never run; what can be kept of it is a dead letter."""


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A body that has been read."""

    func: Callable[..., Any]
    """What to call."""
    args: Sequence[Any]
    """Its positional arguments."""
    kwargs: Mapping[str, Any]
    """Its keyword arguments."""
    sealed: envelope.Envelope
    """The envelope it came in."""
    record: TaskRecord | None = None
    """The record of a claimed payload."""
    store: TaskStore | None = None
    """Where that record is."""

    @property
    def label(self) -> str:
        """What it calls, for people."""
        return callables.label(self.func)

    def run(self) -> None:
        """The call, in the trace of its `defer()`."""
        if self.sealed.trace and tracing.is_loaded():
            with tracing.span(self.sealed.trace, self.label):
                self.func(*self.args, **self.kwargs)
        else:
            self.func(*self.args, **self.kwargs)


def execute(body: bytes, delivery: Delivery) -> Outcome:
    """Run one body. Exceptions of the task other than the two failures propagate, and the queue is to retry."""
    config = current()
    try:
        opened = open_body(body, delivery, config)
    except NotYetReadableError as error:
        return _wait(body, delivery, error, config)
    except DecodeError as error:
        log.error("Task %s in %s cannot be read: %s", delivery.task_name, delivery.queue, error)
        verified = _verifies(body, delivery, config)
        dead.bury(body, delivery, error, config, reason=error.reason, verified=verified)
        return Outcome.PERMANENT
    if opened is None:
        return Outcome.DONE
    outcome = _run(opened, body, delivery, config)
    sweep.after_task(config)
    return outcome


def _verifies(body: bytes, delivery: Delivery, config: Config) -> bool:
    """Whether somebody vouches for a body that cannot be read: its envelope, or (another library's) the door alone."""
    if not frame.is_framed(body):
        return not delivery.require_signature and (config.signer is None or config.accept_legacy_pickles)
    try:
        envelope.decode(frame.unwrap(body), config.signer, require_signature=delivery.require_signature)
    except (DecodeError, NotYetReadableError):
        return False
    return True


def _run(opened: Opened, body: bytes, delivery: Delivery, config: Config) -> Outcome:
    sealed = opened.sealed
    deadline = delivery.deadline or delivery.started + (sealed.deadline or DEFAULT_DEADLINE)
    token = running.set(delivery.until(deadline))
    try:
        opened.run()
    except Exception as error:
        if _is_failure(error, SingularTaskFailure):
            log.info("Task %s (%s) is to be tried again: %s", delivery.task_name, opened.label, error)
            return Outcome.RETRY
        if not _is_failure(error, PermanentTaskFailure):
            raise
        log.error("Task %s (%s) failed for good.", delivery.task_name, opened.label, exc_info=error)
        if opened.record is not None and opened.store is not None:
            dead.bury_record(opened.record, opened.store, error)
        else:
            dead.bury(body, delivery, error, config, reason="permanent", label=opened.label)
        return Outcome.PERMANENT
    finally:
        running.reset(token)
    if opened.record is not None and opened.store is not None:
        opened.store.delete([opened.record.id])
    return Outcome.DONE


def _is_failure(error: Exception, ours: type[Exception]) -> bool:
    """Whether it is our failure, or the one of the same name of the SDK, if that is loaded."""
    sdk = sys.modules.get("google.appengine.ext.deferred.deferred")
    theirs = getattr(sdk, ours.__name__, None)
    return isinstance(error, ours) or (theirs is not None and isinstance(error, theirs))


def open_body(body: bytes, delivery: Delivery, config: Config) -> Opened | None:
    """Read a body; None where its stored payload is gone because it was done.
    Raises DecodeError or NotYetReadableError."""
    if not frame.is_framed(body):
        return _open_legacy(body, delivery, config)
    sealed = envelope.decode(frame.unwrap(body), config.signer, require_signature=delivery.require_signature)
    if sealed.expires is not None and clock.now() > sealed.expires:
        raise ExpiredError
    if sealed.claim is not None:
        return _open_claim(sealed.claim, sealed, body, delivery, config)
    return _opened(sealed.payload or b"", sealed, config)


def _open_claim(
    claim: envelope.Claim, sealed: envelope.Envelope, body: bytes, delivery: Delivery, config: Config
) -> Opened | None:
    store = config.store_named(claim.store, claim.alias)
    if store is None:
        where = f"{claim.store!r} {claim.alias!r}".replace(" ''", "")
        raise StoreNotConfiguredError(f"The task's payload is in the store {where}, which is not configured here.")
    record = store.get(claim.key)
    if record is None or record.payload is None:
        _missing(claim, sealed, body, store, delivery, config)
        return None
    if len(record.payload) != claim.size or envelope.digest(record.payload) != claim.digest:
        raise DecodeError(f"The stored payload of record {record.id} is not the one that the task claims.")
    return _opened(record.payload, sealed, config, record, store)


def _missing(
    claim: envelope.Claim, sealed: envelope.Envelope, body: bytes, store: TaskStore, delivery: Delivery, config: Config
) -> None:
    """A Claim whose record is not there: not yet (retried for the grace), done before, or lost (a dead letter)."""
    if _within_grace(sealed.created, delivery, config):
        raise NotYetReadableError(f"The payload {claim.key} is not in the {store.name} store.")
    if delivery.retry_count == 0:
        log.error("The payload %s of task %s is lost.", claim.key, delivery.task_name)
        dead.bury(body, delivery, None, config, reason="missing payload", store=store)


def _opened(
    payload: bytes,
    sealed: envelope.Envelope,
    config: Config,
    record: TaskRecord | None = None,
    store: TaskStore | None = None,
) -> Opened:
    func, args, kwargs = codec.unpack_call(payload, config)
    return made(Opened, func=func, args=args, kwargs=kwargs, sealed=sealed, record=record, store=store)


def _open_legacy(body: bytes, delivery: Delivery, config: Config) -> Opened:
    """A pickled triple of Google's deferred or of Djangae."""
    if not config.accept_legacy_pickles or not body:
        raise DecodeError("The body is no task of defer. (Pickles of older libraries need `accept_legacy_pickles`.)")
    if delivery.require_signature:
        raise SignatureError("This door needs a signed task, and pickles of older libraries are not.")
    func, args, kwargs = legacy.load(body, config.policy)
    return Opened(func=func, args=args, kwargs=kwargs, sealed=envelope.Envelope())


def _wait(body: bytes, delivery: Delivery, error: NotYetReadableError, config: Config) -> Outcome:
    """An unreadable task is retried for the grace, then dead."""
    created = envelope.created_at(frame.unwrap(body)) if frame.is_framed(body) else None
    if _within_grace(created, delivery, config):
        log.warning("Task %s in %s cannot be read yet: %s", delivery.task_name, delivery.queue, error)
        return Outcome.RETRY
    log.error("Task %s in %s could not be read for %g s: %s", delivery.task_name, delivery.queue, config.grace, error)
    verified = not isinstance(error, UnknownKeyError | UnknownVersionError)
    dead.bury(body, delivery, error, config, reason="unreadable", verified=verified)
    return Outcome.PERMANENT


def _within_grace(created: float | None, delivery: Delivery, config: Config) -> bool:
    """Counted from the later of creation and ETA.
    A time in the future is a lie, and a body without any has no grace."""
    now = clock.now()
    since = max((each for each in (created, delivery.eta) if each and each <= now + CLOCK_SKEW), default=0.0)
    return now - since <= config.grace
