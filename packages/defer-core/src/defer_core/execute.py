"""The run path: a body is unframed, verified, decoded and called; the outcome says what to answer the queue."""

from __future__ import annotations

import logging
import pickle
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from . import clock, codec, dead, envelope, frame, sweep, tracing
from .config import Config, current
from .delivery import DEFAULT_DEADLINE, Delivery, delivering
from .errors import (
    DecodeError,
    NotYetReadableError,
    PermanentTaskFailure,
    SignatureError,
    SingularTaskFailure,
    StoreNotConfiguredError,
)
from .record import TaskRecord
from .stores.base import TaskStore

log = logging.getLogger("defer")


class Outcome(Enum):
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

    run: Callable[[], Any]
    """The call."""
    label: str
    """What it calls, for people."""
    sealed: envelope.Envelope
    """The envelope it came in."""
    record: TaskRecord | None = None
    """The record of a claimed payload."""
    store: TaskStore | None = None
    """Where that record is."""


def execute(body: bytes, delivery: Delivery) -> Outcome:
    """Run one body. Exceptions of the task other than the two failures propagate, and the queue is to retry."""
    config = current()
    try:
        opened = open_body(body, delivery, config)
    except NotYetReadableError as error:
        return _wait(body, delivery, error, config)
    except DecodeError as error:
        log.error("Task %s in %s cannot be read: %s", delivery.task_name, delivery.queue, error)
        dead.bury_unread(body, delivery, error, config, verified=not isinstance(error, SignatureError))
        return Outcome.PERMANENT
    if opened is None:
        return Outcome.DONE
    outcome = _run(opened, delivery, config)
    sweep.after_task(config)
    return outcome


def _run(opened: Opened, delivery: Delivery, config: Config) -> Outcome:
    sealed = opened.sealed
    deadline = delivery.started + (sealed.deadline or DEFAULT_DEADLINE)
    attempt = replace(delivery, deadline=delivery.deadline or deadline)
    try:
        with delivering(attempt), tracing.continued(sealed.trace, opened.label):
            opened.run()
    except Exception as error:
        if _is_failure(error, SingularTaskFailure):
            log.info("Task %s (%s) is to be tried again: %s", delivery.task_name, opened.label, error)
            return Outcome.RETRY
        if not _is_failure(error, PermanentTaskFailure):
            raise
        log.error("Task %s (%s) failed for good.", delivery.task_name, opened.label, exc_info=error)
        dead.bury(opened.record, opened.store, sealed, opened.label, delivery, error, config)
        return Outcome.PERMANENT
    if opened.record is not None and opened.store is not None:
        opened.store.delete([opened.record.id])
    return Outcome.DONE


def _is_failure(error: Exception, ours: type[Exception]) -> bool:
    """Whether it is our failure, or the one of the same name of the SDK, if that is loaded."""
    sdk = sys.modules.get("google.appengine.ext.deferred.deferred")
    theirs = getattr(sdk, ours.__name__, None)
    return isinstance(error, ours) or (theirs is not None and isinstance(error, theirs))


def open_body(body: bytes, delivery: Delivery, config: Config) -> Opened | None:
    """Read a body; None where its stored payload is gone because it was done. Raises DecodeError or NotYetReadableError."""
    if not frame.is_framed(body):
        return _open_legacy(body, delivery, config)
    sealed = envelope.decode(frame.unwrap(body), config.signer, require_signature=delivery.require_signature)
    if sealed.expires is not None and clock.now() > sealed.expires:
        raise DecodeError("The task has expired.")
    if sealed.claim is None:
        assert sealed.payload is not None
        return _opened(sealed.payload, sealed, None, None, config)
    store = config.store_named(sealed.claim.store, sealed.claim.alias)
    if store is None:
        raise StoreNotConfiguredError(
            f"The payload is in the store {sealed.claim.store!r} {sealed.claim.alias!r}, which is not configured here."
        )
    record = store.get(sealed.claim.key)
    if record is None or record.payload is None:
        return dead.missing_payload(sealed, store, delivery, config)
    if len(record.payload) != sealed.claim.size or envelope.digest(record.payload) != sealed.claim.digest:
        raise DecodeError(f"The stored payload of record {record.id} is not the one that the task claims.")
    return _opened(record.payload, sealed, record, store, config)


def _opened(
    payload: bytes, sealed: envelope.Envelope, record: TaskRecord | None, store: TaskStore | None, config: Config
) -> Opened:
    func, args, kwargs = codec.unpack_call(payload, config)
    label = codec.callables.label(func)
    return Opened(run=lambda: func(*args, **kwargs), label=label, sealed=sealed, record=record, store=store)


def _open_legacy(body: bytes, delivery: Delivery, config: Config) -> Opened:
    """A pickled triple of Google's deferred or of Djangae."""
    if not config.accept_legacy_pickles or not body:
        raise DecodeError("The body is no task of defer. (Pickles of older libraries need `accept_legacy_pickles`.)")
    if delivery.require_signature:
        raise SignatureError("This door needs a signed task, and pickles of older libraries are not.")
    from .legacy import load

    func, args, kwargs = load(body)
    sealed = envelope.Envelope(created=delivery.eta or 0.0)
    return Opened(run=lambda: func(*args, **kwargs), label=codec.callables.label(func), sealed=sealed)


def _wait(body: bytes, delivery: Delivery, error: NotYetReadableError, config: Config) -> Outcome:
    """An unreadable task is retried for the grace, counted from the later of its creation and its ETA, then dead."""
    created = envelope.created_at(frame.unwrap(body)) if frame.is_framed(body) else None
    since = max(created or 0.0, delivery.eta or 0.0) or delivery.started
    if clock.now() - since <= config.grace:
        log.warning("Task %s in %s cannot be read yet: %s", delivery.task_name, delivery.queue, error)
        return Outcome.RETRY
    log.error("Task %s in %s could not be read for %g s: %s", delivery.task_name, delivery.queue, config.grace, error)
    dead.bury_unread(body, delivery, error, config, verified=False)
    return Outcome.PERMANENT
