"""Handing a stored record to the queue, and what the queue's answer means for the record."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .. import clock
from ..config import Config
from ..errors import (
    AmbiguousSendError,
    TaskAlreadyExistsError,
    TaskSizeRefusedError,
    TransportError,
    TransportRefusedError,
    TransportUnavailableError,
)
from ..record import TaskRecord, dead
from ..stores.base import TaskStore
from ..telemetry import metrics
from ..text import one_line, traceback_of
from ..transports.base import Message
from ..wire import envelope, frame
from .handle import Status, TaskHandle
from .outbox import with_claim_check

log = logging.getLogger("defer")

FIRST_BACKOFF, LONGEST_BACKOFF = 60.0, 600.0
"""Seconds before a record is sent again: the wait doubles from the first to the second."""


def message_of(record: TaskRecord) -> Message:
    """Return a record as a Message for the queue."""
    return Message(body=body_of(record), routing=record.routing)


def body_of(record: TaskRecord) -> bytes:
    """Return the body of a record's task: its envelope in a frame, or (a dead letter of another library's task) the
    body as delivered."""
    return frame.wrap(record.envelope) if envelope.is_envelope(record.envelope) else record.envelope


def hand_over(message: Message, label: str, config: Config) -> str:
    """Hand a message to the queue, and count it; `label` names its callable. Returns its short name. Raises what the
    transport's `send` does."""
    queue, began = message.routing.queue, clock.now()
    try:
        name = config.the_transport.send(message)
    except Exception as error:  # the queue's, or that of a task which the transport runs
        metrics.sent(queue, label, error if isinstance(error, TransportError) else None, began=began)
        raise
    metrics.sent(queue, label, began=began)
    return name


def hand_over_many(records: Sequence[TaskRecord], config: Config) -> list[str | TransportError]:
    """Hand the messages of many records to the queue, and count them. Returns its answers by index."""
    began = clock.now()
    answers = config.the_transport.send_many([message_of(record) for record in records])
    metrics.sent_many(((record.routing.queue, record.label) for record in records), answers, began=began)
    return answers


def on_commit(func: Callable[[], object], store: TaskStore, config: Config) -> None:
    """Call `func`, which sends, after the surrounding commit. If the transport runs the tasks, their exceptions reach
    the caller that commits."""
    (store.on_commit_or_raise if config.the_transport.runs_tasks else store.on_commit)(func)


@dataclass(kw_only=True)
class Dispatch:
    """A stored record on its way to the queue."""

    record: TaskRecord
    """The current record: an inline one may get a claim check on the way."""
    store: TaskStore
    """The store that has it."""
    config: Config
    """The configuration, which names the transport."""

    def send(self) -> TransportError | None:
        """Hand the record to the queue, by claim check if the service finds it too large. Returns the error that the
        queue answered, else None."""
        try:
            hand_over(message_of(self.record), self.record.label, self.config)
        except TransportError as error:
            return self.take_answer(error)
        return None

    def take_answer(self, answer: object) -> TransportError | None:
        """Return the error that remains of the queue's answer, else None: an inline task that the service found too
        large is sent again by claim check."""
        if not isinstance(answer, TransportError):
            return None
        record, store, config = self.record, self.store, self.config
        if record.is_claim_check or not isinstance(answer, TaskSizeRefusedError):
            return answer
        sealed = envelope.decode(record.envelope, config.signer)
        self.record = larger = with_claim_check(record, sealed, store, config)
        changes = {"envelope": larger.envelope, "payload": larger.payload}
        if not store.mark(record.id, lease=record.lease, new_lease=record.lease, **changes):
            return TaskAlreadyExistsError()  # the sweep has it
        return self.send()

    def apply(self, error: TransportError | None, handle: TaskHandle, *, named: bool) -> None:
        """Apply the queue's answer outside a transaction. Raises the TransportError of a queue that refuses, once the
        record is deleted; a task that is there already counts as sent unless the caller gave its name (`named`)."""
        if isinstance(error, TransportUnavailableError | AmbiguousSendError):
            handle.status = Status.WAITS_FOR_SWEEP
            try:
                self.postpone(error)
            except Exception:  # the record is stored and pending all the same: the caller must not defer it again
                log.exception("Task %s (%s) was not sent, and its record was not updated.", *self._names())
        elif error is not None and (named or not isinstance(error, TaskAlreadyExistsError)):
            self._withdraw(error)
            raise error
        else:
            self._mark_sent(handle)

    def apply_after_commit(self, error: TransportError | None, handle: TaskHandle) -> None:
        """Apply the queue's answer after a commit: failures are left to the sweep, and nothing is raised."""
        if error is not None and not isinstance(error, TaskAlreadyExistsError):
            handle.status = Status.WAITS_FOR_SWEEP
            self.postpone(error)
            return
        if error is not None:
            name, own = self.record.routing.name, self.record.routing.name != self.record.id
            level = logging.WARNING if own else logging.INFO  # a name of ours is taken by the same task, sent before
            log.log(level, "Task %s (%s) is already in the queue.", name, self.record.label)
        self._mark_sent(handle)

    def send_after_commit(self, handle: TaskHandle) -> None:
        """Send what a transaction has committed. Raises only what a task raises that the transport runs."""
        try:
            self.apply_after_commit(self.send(), handle)
        except Exception:
            handle.status = Status.WAITS_FOR_SWEEP
            if self.config.the_transport.runs_tasks:
                raise
            log.exception("Task %s (%s) was not sent after its commit: the sweep will send it.", *self._names())

    def postpone(self, error: TransportError) -> bool:
        """Leave the record to the next sweep, or make it a dead letter if the queue has refused it too often. Returns
        whether it still had its lease."""
        record, now, attempts = self.record, clock.now(), self.record.attempts + 1
        changes: dict[str, Any] = {
            "attempts": attempts,
            "due": now + min(FIRST_BACKOFF * 2 ** min(record.attempts, 10), LONGEST_BACKOFF),
            "last_error": traceback_of(error),
            "first_attempt": record.first_attempt or now,
            "last_attempt": now,
        }
        if isinstance(error, AmbiguousSendError) and record.doubtful_since is None:
            changes["doubtful_since"] = now
        if isinstance(error, TransportRefusedError) and attempts >= self.config.max_send_attempts:
            changes |= dead("exhausted")
        log.warning("Task %s (%s) was not sent (attempt %d): %s", *self._names(), attempts, one_line(error))
        marked = self.store.mark(record.id, lease=record.lease, **changes)
        if marked and "reason" in changes:
            metrics.died(record.routing.queue, record.label, changes["reason"])
        return marked

    def _withdraw(self, error: TransportError) -> None:
        try:
            self.store.delete([self.record.id])
        except Exception as failure:
            record_id = self.record.id
            error.add_note(f"Its record {record_id} could not be deleted, so the sweep will send it again: {failure!r}")

    def _mark_sent(self, handle: TaskHandle) -> None:
        """Let an inline record be deleted by a later put; one with a claim check stays for its run."""
        handle.status = Status.SENT
        if self.record.is_claim_check:
            handle.payload = body_of(self.record)  # which was inline, if the service found it too large
        else:
            self.store.forgotten.add(self.record.id)

    def _names(self) -> tuple[str, str]:
        return self.record.id, one_line(self.record.label)
