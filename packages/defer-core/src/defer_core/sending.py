"""One try at handing a stored record to the queue, and what its answer means for the record."""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass
from typing import Any

from . import clock, envelope, frame
from .config import Config
from .errors import (
    AmbiguousSendError,
    TaskAlreadyExistsError,
    TaskSizeRefusedError,
    TransportError,
    TransportRefusedError,
    TransportUnavailableError,
)
from .frozen import made
from .handle import Status, TaskHandle
from .record import State, TaskRecord
from .sealing import claimed
from .stores.base import TaskStore
from .transports.base import Message

log = logging.getLogger("defer")

FIRST_BACKOFF, LONGEST_BACKOFF = 60.0, 600.0
"""Seconds before a record is sent again: the wait doubles from the one to the other."""


def message(record: TaskRecord) -> Message:
    """A record as the queue gets it."""
    return made(Message, body=body_of(record), routing=record.routing)


def body_of(record: TaskRecord) -> bytes:
    """The body of a record's task: its envelope in a frame, or (a dead letter of another library's task) as it came."""
    return frame.wrap(record.envelope) if envelope.is_envelope(record.envelope) else record.envelope


@dataclass(frozen=True, kw_only=True)
class Try:
    """One try at sending a record."""

    record: TaskRecord
    """The record as it is now: an inline one may have become a Claim."""
    error: TransportError | None = None
    """What the queue said; None where it took the task."""


def send(record: TaskRecord, store: TaskStore, config: Config) -> Try:
    """Hand a record to the queue; as a Claim where the service finds it too large."""
    try:
        config.the_transport.send(message(record))
    except TransportError as error:
        return tried(record, error, store, config)
    return Try(record=record)


def tried(record: TaskRecord, answer: str | TransportError, store: TaskStore, config: Config) -> Try:
    """What a queue's answer means; an inline task that the service found too large is sent again as a Claim."""
    if not isinstance(answer, TransportError):
        return Try(record=record)
    if record.is_claim or not isinstance(answer, TaskSizeRefusedError):
        return Try(record=record, error=answer)
    larger = claimed(record, envelope.decode(record.envelope, config.signer), store, config)
    if not store.mark(
        record.id, lease=record.lease, new_lease=record.lease, envelope=larger.envelope, payload=larger.payload
    ):
        return Try(record=larger, error=TaskAlreadyExistsError())  # the sweep has it
    return send(larger, store, config)


def settle_now(this: Try, store: TaskStore, config: Config, handle: TaskHandle, *, named: bool) -> None:
    """Outside a transaction. Raises the TransportError where the queue refuses, with the record removed."""
    error = this.error
    if isinstance(error, TransportUnavailableError | AmbiguousSendError):
        handle.status = Status.WAITS_FOR_SWEEP
        _postpone_if_it_can_be(this.record, store, config, error)
    elif error is not None and (named or not isinstance(error, TaskAlreadyExistsError)):
        _withdraw(this.record, store, error)
        raise error
    else:
        was_sent(this.record, store, handle)


def _postpone_if_it_can_be(
    record: TaskRecord, store: TaskStore, config: Config, error: TransportUnavailableError | AmbiguousSendError
) -> None:
    """Its record is stored, and pending, whether or not that can be noted: the caller must not defer it again."""
    try:
        postpone(record, store, config, error)
    except Exception:
        log.exception("That task %s (%s) was not sent could not be noted.", record.id, record.label)


def _withdraw(record: TaskRecord, store: TaskStore, error: TransportError) -> None:
    try:
        store.delete([record.id])
    except Exception as failure:
        error.add_note(f"Its record {record.id} could not be deleted, and the sweep will send it again: {failure!r}")


def settle_after_commit(this: Try, store: TaskStore, config: Config, handle: TaskHandle) -> None:
    """After a commit nothing is lost and nothing raised: what failed is the sweep's."""
    if this.error is not None and not isinstance(this.error, TaskAlreadyExistsError):
        handle.status = Status.WAITS_FOR_SWEEP
        postpone(this.record, store, config, this.error)
        return
    if this.error is not None:
        log.info("Task %s (%s) is in the queue already.", this.record.routing.name, this.record.label)
    was_sent(this.record, store, handle)


def send_after_commit(record: TaskRecord, store: TaskStore, config: Config, handle: TaskHandle) -> None:
    """Send what a transaction has committed. Never raises."""
    try:
        settle_after_commit(send(record, store, config), store, config, handle)
    except Exception:
        handle.status = Status.WAITS_FOR_SWEEP
        log.exception("Task %s (%s) could not be sent after its commit: the sweep will.", record.id, record.label)


def was_sent(record: TaskRecord, store: TaskStore, handle: TaskHandle) -> None:
    """An inline record may go with a later put; a claimed one stays for its run."""
    handle.status = Status.SENT
    if record.is_claim:
        handle.payload = body_of(record)  # which was inline, if the service found it too large
    else:
        store.forgotten.add(record.id)


def postpone(record: TaskRecord, store: TaskStore, config: Config, error: TransportError) -> bool:
    """Leave a record to the next sweep, or make it a dead letter where the queue has refused it too often."""
    now, attempts = clock.now(), record.attempts + 1
    changes: dict[str, Any] = {
        "attempts": attempts,
        "due": now + min(FIRST_BACKOFF * 2 ** min(record.attempts, 10), LONGEST_BACKOFF),
        "last_error": "".join(traceback.format_exception(error)),
        "first_attempt": record.first_attempt or now,
        "last_attempt": now,
    }
    if isinstance(error, AmbiguousSendError) and record.doubtful_since is None:
        changes["doubtful_since"] = now
    if isinstance(error, TransportRefusedError) and attempts >= config.max_send_attempts:
        changes |= {"state": State.DEAD, "reason": "exhausted"}
    log.warning("Task %s (%s) was not sent (try %d): %s", record.id, record.label, attempts, error)
    return store.mark(record.id, lease=record.lease, **changes)
