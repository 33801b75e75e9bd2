"""Dead letters: how a task becomes one, and how a person lists, re-runs and drops them."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from . import clock, envelope, frame, sending
from .config import Config, current
from .delivery import Delivery
from .errors import DecodeError
from .handle import TaskHandle
from .record import State, TaskRecord, new_id
from .stores.base import TaskStore
from .task import Routing

log = logging.getLogger("defer")

FULL_FOR = 60.0
"""Seconds for which a store that was full of unverified bodies is not counted again."""
_full_until: WeakKeyDictionary[TaskStore, float] = WeakKeyDictionary()


def bury(
    body: bytes,
    delivery: Delivery,
    error: BaseException | None,
    config: Config,
    *,
    reason: str,
    label: str = "",
    verified: bool = True,
    store: TaskStore | None = None,
) -> None:
    """Keep a delivered body as a new dead letter, as it came. Where no store is configured, the log is all there is.

    Of those that never verified only `max_unverified` are kept.
    """
    store, now = store or config.the_store, clock.now()
    if store is None or (not verified and _is_full(store, config)):
        log.error("Task %s (%s) is not kept as a dead letter: %s", delivery.task_name, label, reason)
        return
    record = TaskRecord(
        id=new_id(),
        envelope=_bare(body),
        routing=Routing(queue=delivery.queue or "default", name=delivery.task_name or None),
        state=State.DEAD,
        verified=verified,
        created=now,
        due=now,
        last_error="" if error is None else _text(error),
        reason=reason,
        first_attempt=now,
        last_attempt=now,
        label=label,
    )
    store.put([record])


def bury_record(record: TaskRecord, store: TaskStore, error: BaseException) -> None:
    """Make a stored task a dead letter. A sweep that holds a lease on it loses that: the run has the last word."""
    now = clock.now()
    changes: dict[str, Any] = {
        "state": State.DEAD,
        "reason": "permanent",
        "last_error": _text(error),
        "last_attempt": now,
    }
    latest: TaskRecord | None = record
    while latest is not None and not store.mark(
        record.id, lease=latest.lease, first_attempt=latest.first_attempt or now, **changes
    ):
        latest = store.get(record.id)


def _bare(body: bytes) -> bytes:
    """The envelope of a body that is well framed, else the body."""
    try:
        return frame.unwrap(body) if frame.is_framed(body) else body
    except DecodeError:
        return body


def _is_full(store: TaskStore, config: Config) -> bool:
    """Whether as many unverified bodies are kept as may be. Counting them is work that anybody can cause, so a store
    that was full is taken to be full for a while."""
    if clock.now() < _full_until.get(store, 0.0):
        return True
    full = sum(not record.verified for record in dead_letters(store)) >= config.max_unverified
    if full:
        _full_until[store] = clock.now() + FULL_FOR
    return full


def _text(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def dead_letters(store: TaskStore) -> Iterator[TaskRecord]:
    """All dead letters of a store, by id, read a page at a time."""
    after = ""
    while page := store.list(State.DEAD, after=after):
        yield from page
        after = page[-1].id


def find(record_id: str, store: TaskStore) -> TaskRecord:
    """A dead letter. Raises KeyError."""
    record = store.get(record_id)
    if record is None or record.state is not State.DEAD:
        raise KeyError(f"There is no dead letter {record_id}.")
    return record


def rerun(record_id: str, store: TaskStore) -> TaskHandle:
    """Send a dead letter again, under a new name, once a surrounding transaction has committed.

    Raises KeyError; or DecodeError, SignatureError, UnknownKeyError or UnknownVersionError for a body that does not
    verify (now)."""
    config, record = current(), find(record_id, store)
    if envelope.is_envelope(record.envelope) or not (record.verified or config.accept_legacy_pickles):
        envelope.decode(record.envelope, config.signer)
    token = new_id()
    changes: dict[str, Any] = {
        "state": State.PENDING,
        "routing": _routing_again(record, config),
        "due": clock.now() + config.sweep_grace,
        "attempts": 0,
        "doubtful_since": None,
        "reason": "",
        "verified": True,
    }
    if not store.mark(record.id, lease=record.lease, new_lease=token, **changes):
        raise KeyError(f"The dead letter {record_id} was changed by somebody else just now.")
    again = replace(record, lease=token, **changes)
    handle = TaskHandle(routing=again.routing, payload=sending.body_of(again), record_id=again.id)
    store.on_commit(partial(sending.send_after_commit, again, store, config, handle))
    return handle


def _routing_again(record: TaskRecord, config: Config) -> Routing:
    """A new name, for the queue may well refuse the old one, which would then count as sent."""
    return replace(record.routing, name=new_id(), eta=None, url=record.routing.url or config.post_url())


def drop(record_id: str, store: TaskStore) -> bool:
    """Delete a dead letter. Returns whether it was there, unchanged."""
    record = find(record_id, store)
    return store.delete([record_id], lease=record.lease) > 0


def expire(store: TaskStore, config: Config, until: float | None = None) -> int:
    """Delete dead letters past their retention, as far as one gets by `until`. Returns how many."""
    if not config.dead_retention:
        return 0
    oldest, gone = clock.now() - config.dead_retention, 0
    for each in dead_letters(store):
        if until is not None and clock.now() >= until:
            break
        if (each.last_attempt or each.created) < oldest:
            gone += store.delete([each.id], lease=each.lease)
    return gone
