"""Dead letters: how a task becomes one, and how a person lists, re-runs and drops them."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from . import clock, envelope, frame, sending
from .config import Config, current
from .delivery import Delivery
from .errors import DeferError, NotYetReadableError
from .handle import TaskHandle
from .record import State, TaskRecord, new_id
from .stores.base import TaskStore
from .task import Routing

if TYPE_CHECKING:
    from .execute import Opened

log = logging.getLogger("defer")


def bury(
    record: TaskRecord | None,
    store: TaskStore | None,
    sealed: envelope.Envelope,
    label: str,
    delivery: Delivery,
    error: BaseException,
    config: Config,
) -> None:
    """Keep a task that failed for good: its record if it has one, else (an inline task) a new one."""
    text, now = _text(error), clock.now()
    if record is not None and store is not None:
        _mark_dead(record, store, reason="permanent", last_error=text, last_attempt=now)
    elif sealed.payload is not None:
        wire = envelope.encode(sealed, config.signer)
        _keep(wire, delivery, config, reason="permanent", error=text, label=label)


def bury_unread(body: bytes, delivery: Delivery, error: BaseException, config: Config, *, verified: bool) -> None:
    """Keep a body that could not be read, as it came; of those that never verified only so many."""
    store = config.the_store
    if store is not None and not verified and _unverified(store, config.max_unverified) >= config.max_unverified:
        log.error("There are %d unverified dead letters already: this one is not kept.", config.max_unverified)
        return
    wire = frame.unwrap(body) if frame.is_framed(body) and len(body) >= frame.OVERHEAD and _frames(body) else body
    _keep(wire, delivery, config, reason="unread" if verified else "unverified", error=_text(error), verified=verified)


def _frames(body: bytes) -> bool:
    try:
        frame.unwrap(body)
    except DeferError:
        return False
    return True


def _unverified(store: TaskStore, enough: int) -> int:
    return sum(not record.verified for record in store.list(State.DEAD, limit=10 * enough))


def missing_payload(sealed: envelope.Envelope, store: TaskStore, delivery: Delivery, config: Config) -> None:
    """A Claim whose record is not there: not yet (retry, for the grace), or done before, or lost (a dead letter)."""
    assert sealed.claim is not None
    since = max(sealed.created, delivery.eta or 0.0)
    if clock.now() - since <= config.grace:
        raise NotYetReadableError(f"The payload {sealed.claim.key} is not in the {store.name} store.")
    if delivery.retry_count != 0:
        return
    _keep(envelope.encode(sealed, config.signer), delivery, config, reason="missing payload", store=store)


def _keep(
    wire: bytes,
    delivery: Delivery,
    config: Config,
    *,
    reason: str,
    error: str = "",
    label: str = "",
    verified: bool = True,
    store: TaskStore | None = None,
) -> None:
    """Write a dead letter; where no store is configured the log is all there is."""
    store, now = store or config.the_store, clock.now()
    if store is None:
        log.error("No store is configured: the task %s (%s) is not kept.", delivery.task_name, label)
        return
    routing = Routing(queue=delivery.queue or "default", name=delivery.task_name or None)
    record = TaskRecord(
        id=new_id(), envelope=wire, routing=routing, state=State.DEAD, verified=verified, created=now, due=now,
        last_error=error, reason=reason, first_attempt=now, last_attempt=now, label=label,
    )  # fmt: skip
    store.put([record])


def _mark_dead(record: TaskRecord, store: TaskStore, **changes: object) -> None:
    """Whoever holds a lease on it loses it: what the run says is the last word."""
    for _ in range(5):
        current_record = store.get(record.id)
        if current_record is None or store.mark(record.id, lease=current_record.lease, state=State.DEAD, **changes):
            return


def _text(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def dead_letters(store: TaskStore) -> Iterator[TaskRecord]:
    """All dead letters of a store, by id, a page at a time."""
    after = ""
    while page := store.list(State.DEAD, after=after):
        yield from page
        after = page[-1].id


def rerun(record_id: str, store: TaskStore) -> TaskHandle:
    """Send a dead letter again, under a new name. Raises KeyError, or SignatureError for one that does not verify."""
    config, now = current(), clock.now()
    record = store.get(record_id)
    if record is None or record.state is not State.DEAD:
        raise KeyError(f"There is no dead letter {record_id}.")
    if frame.is_framed(frame.wrap(record.envelope)) and not record.verified:
        envelope.decode(record.envelope, config.signer)
    routing = replace(record.routing, name=new_id(), eta=None, url=record.routing.url or config.post_url())
    changes = {"state": State.PENDING, "routing": routing, "attempts": 0, "doubtful_since": None, "reason": ""}
    if not store.mark(record.id, lease=record.lease, due=now + config.sweep_grace, **changes):
        raise KeyError(f"The dead letter {record_id} is being changed by somebody else.")
    again = replace(record, **changes, lease="")  # type: ignore[arg-type]
    handle = TaskHandle(routing=routing, payload=sending.message(again).body, record_id=record.id)
    sending.send_after_commit(again, store, config, handle)
    return handle


def drop(record_id: str, store: TaskStore) -> bool:
    """Delete a dead letter. Returns whether it was there."""
    record = store.get(record_id)
    return record is not None and record.state is State.DEAD and store.delete([record_id]) > 0
