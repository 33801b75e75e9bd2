"""One try at handing a stored record to the queue, and what its answer means for the record."""

from __future__ import annotations

import logging
import traceback
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
    return Message(body=body_of(record), routing=record.routing)


def body_of(record: TaskRecord) -> bytes:
    """The body of a record's task: its envelope in a frame, or (a dead letter of another library's task) as it came."""
    return frame.wrap(record.envelope) if envelope.is_envelope(record.envelope) else record.envelope


def send(record: TaskRecord, store: TaskStore, config: Config) -> str | TransportError:
    """Hand a record to the queue; as a Claim where the service finds it too large. Returns its name, or the error."""
    try:
        answer: str | TransportError = config.the_transport.send(message(record))
    except TransportError as error:
        answer = error
    return claim_if_refused(answer, record, store, config)


def claim_if_refused(
    answer: str | TransportError, record: TaskRecord, store: TaskStore, config: Config
) -> str | TransportError:
    """Where the service found an inline task too large, the answer to sending it as a Claim; else the answer."""
    if record.is_claim or not isinstance(answer, TaskSizeRefusedError):
        return answer
    larger = claimed(record, envelope.decode(record.envelope, config.signer), store, config)
    if not store.mark(record.id, lease=record.lease, new_lease=record.lease, envelope=larger.envelope, payload=larger.payload):
        return TaskAlreadyExistsError()
    return send(larger, store, config)


def settle_now(
    answer: str | TransportError, record: TaskRecord, store: TaskStore, config: Config, handle: TaskHandle, *, named: bool
) -> None:
    """Outside a transaction. Raises the TransportError where the queue refuses, with the record removed."""
    if isinstance(answer, TransportUnavailableError | AmbiguousSendError):
        postpone(record, store, config, answer)
        handle.status = Status.WAITS_FOR_SWEEP
    elif isinstance(answer, TransportError) and (named or not isinstance(answer, TaskAlreadyExistsError)):
        store.delete([record.id])
        raise answer
    else:
        was_sent(record, store, handle)


def settle_after_commit(
    answer: str | TransportError, record: TaskRecord, store: TaskStore, config: Config, handle: TaskHandle
) -> None:
    """After a commit nothing is lost and nothing raised: what failed is the sweep's."""
    if isinstance(answer, TransportError) and not isinstance(answer, TaskAlreadyExistsError):
        postpone(record, store, config, answer)
        handle.status = Status.WAITS_FOR_SWEEP
        return
    if isinstance(answer, TaskAlreadyExistsError):
        log.info("Task %s (%s) is in the queue already.", record.routing.name, record.label)
    was_sent(record, store, handle)


def send_after_commit(record: TaskRecord, store: TaskStore, config: Config, handle: TaskHandle) -> None:
    """Send what a transaction has committed. Never raises."""
    try:
        settle_after_commit(send(record, store, config), record, store, config, handle)
    except Exception:
        log.exception("Task %s (%s) could not be sent after its commit: the sweep will.", record.id, record.label)


def was_sent(record: TaskRecord, store: TaskStore, handle: TaskHandle) -> None:
    """An inline record may go with a later put; a claimed one stays for its run."""
    handle.status = Status.SENT
    if not record.is_claim:
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
