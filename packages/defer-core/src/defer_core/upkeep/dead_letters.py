"""Dead letters: how a task becomes one, and how a person lists, re-runs and drops them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from typing import Any
from weakref import WeakKeyDictionary

from .. import clock
from ..config import Config, current
from ..delivery import Delivery
from ..errors import DecodeError, NotYetReadableError
from ..record import State, TaskRecord, dead, new_id
from ..send import outbox, retrying
from ..send.dispatch import Dispatch, body_of
from ..send.handle import TaskHandle
from ..stores.base import TaskStore
from ..task import Routing, TaskOptions
from ..telemetry import metrics
from ..text import one_line, traceback_of
from ..wire import binding, envelope, frame

log = logging.getLogger("defer")

FULL_FOR = 60.0
"""Seconds for which a store that was full is not counted again."""
EXPIRED_AT_ONCE = 40
"""Dead letters that are deleted at a time."""
_full_until: WeakKeyDictionary[TaskStore, float] = WeakKeyDictionary()


def keep_body(
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
    """Keep a delivered body as a new dead letter, as it came; without a store, only log it.

    Of the bodies that never verified only `max_unverified` are kept.
    """
    store, now = store or config.the_store, clock.now()
    if store is None or (not verified and _is_full(store, config)):
        names = one_line(delivery.task_name), one_line(label or "?"), delivery.attempt
        why = "no store is configured" if store is None else f"{config.max_unverified} unverified bodies are kept"
        log.error("Task %s (%s) is not kept after attempt %d (%s): %s.", *names, reason, why)
        return
    own = retrying.own_of(sealed_of(body, config)) if verified else None
    # an unverified body must not be able to overwrite a record by naming its task
    known = verified and bool(delivery.task_name)
    record = TaskRecord(
        id=letter_id(body, delivery) if known else new_id(),
        envelope=bare(body),
        routing=Routing(queue=delivery.queue or "default", name=delivery.task_name or None, retry=own),
        **dead(reason),
        attempts=delivery.attempt,
        verified=verified,
        created=(envelope.created_at(bare(body)) if verified else None) or now,
        due=now,
        last_error="" if error is None else traceback_of(error),
        first_attempt=now,
        last_attempt=now,
        label=label,
    )
    if known:
        keep(record, store)
    else:
        store.put([record])
    metrics.died(record.routing.queue, label, reason)


def make_dead(
    record: TaskRecord, store: TaskStore, delivery: Delivery, error: BaseException, *, reason: str = "permanent"
) -> None:
    """Make a stored task a dead letter."""
    is_kept = write_over(
        record,
        store,
        **dead(reason),
        attempts=delivery.attempt,
        last_error=traceback_of(error),
        first_attempt=first_attempt(record, delivery),
        last_attempt=clock.now(),
    )
    if is_kept:
        metrics.died(record.routing.queue, record.label, reason)


def first_attempt(record: TaskRecord, delivery: Delivery) -> float:
    """Return when a stored task was first run; attempts to send it no longer count."""
    known = record.first_attempt if record.state in (State.FAILING, State.DEAD) else None
    return known or delivery.started


def letter_id(body: bytes, delivery: Delivery) -> str:
    """Return the id of the record for a task that has none of its own: the same at every attempt, and another for a
    later task of the same name."""
    return blake2b(f"{delivery.queue}/{delivery.task_name}\0".encode() + body, digest_size=16).hexdigest()


_SAID = ("state", "due", "attempts", "last_error", "reason", "last_attempt")
"""Fields that an attempt knows better than the one before it."""


def keep(record: TaskRecord, store: TaskStore, *, may_add: Callable[[], bool] = lambda: True) -> None:
    """Update the record of a task with what an attempt says, or add it as a new record."""
    said = {name: getattr(record, name) for name in _SAID}
    if write_over(record, store, **said) or not may_add():
        return
    try:
        store.put([record])
    except Exception:  # another delivery of the same task was faster
        if not write_over(record, store, **said):
            raise


def write_over(record: TaskRecord, store: TaskStore, **changes: Any) -> bool:
    """Change a record despite any lease: a sweep that has it loses its lease, because the run has the last word.
    Returns whether the record exists."""
    latest: TaskRecord | None = record
    while latest is not None:
        if store.mark(record.id, lease=latest.lease, **changes):
            return True
        latest = store.get(record.id)
    return False


def bare(body: bytes) -> bytes:
    """Return the envelope of a body that is well framed, else the body."""
    try:
        return frame.unwrap(body) if frame.is_framed(body) else body
    except DecodeError:
        return body


def sealed_of(body: bytes, config: Config) -> envelope.Envelope | None:
    """Return the envelope of a body if it verifies, else None."""
    try:
        return envelope.decode(frame.unwrap(body), config.signer) if frame.is_framed(body) else None
    except (DecodeError, NotYetReadableError):
        return None


def _is_full(store: TaskStore, config: Config) -> bool:
    """Return True if the store has as many unverified bodies as it may. Counting is work that anyone can cause, so a
    store that was full is taken to be full for a while."""
    if clock.now() < _full_until.get(store, 0.0):
        return True
    full = store.count_unverified() >= config.max_unverified
    if full:
        _full_until[store] = clock.now() + FULL_FOR
    return full


def dead_letters(store: TaskStore, state: State = State.DEAD) -> Iterator[TaskRecord]:
    """Yield all dead letters of a store (or the records in another state), by id, read a page at a time."""
    after = ""
    while page := store.list(state, after=after):
        yield from page
        after = page[-1].id


def find(record_id: str, store: TaskStore, states: Collection[State] = (State.DEAD,)) -> TaskRecord:
    """Return a dead letter (or a record in one of these states). Raises KeyError."""
    record = store.get(record_id)
    if record is None or record.state not in states:
        why = f": the task is {record.state}" if record else ""
        raise KeyError(f"There is no dead letter {record_id}{why}.")
    return record


def rerun(record_id: str, store: TaskStore) -> TaskHandle:
    """Send a dead letter again, as a new task under a new record, once a surrounding transaction has committed.

    Raises KeyError; or DecodeError, SignatureError, UnknownKeyError or UnknownVersionError for a body that does not
    verify (now)."""
    config, letter = current(), find(record_id, store)
    again = _again(letter, store, config)
    handle = TaskHandle(routing=again.routing, payload=body_of(again), record_id=again.id)
    dispatch = Dispatch(record=again, store=store, config=config)
    with store.transaction():
        if not store.delete([letter.id], lease=letter.lease):
            raise KeyError(f"The dead letter {record_id} was just changed by another process: look at it again.")
        store.put([again])
        store.on_commit(partial(dispatch.send_after_commit, handle))
    return handle


def _again(letter: TaskRecord, store: TaskStore, config: Config) -> TaskRecord:
    """Return a new record of a letter's task. A person vouches for it: it is signed anew, and expires later."""
    now = clock.now()
    record = TaskRecord(
        id=new_id(),
        envelope=letter.envelope,
        routing=_routing_again(letter, config),
        idempotent=letter.idempotent,
        created=now,
        due=now + config.sweep_grace,
        label=letter.label,
    )
    if not envelope.is_envelope(letter.envelope) and (letter.verified or config.accept_legacy_pickles):
        return record
    sealed = envelope.decode(letter.envelope, config.signer)
    trace = {**sealed.trace, **binding.outgoing(record.routing.queue, config)}
    fresh = replace(sealed, created=now, expires=outbox.expiry(now, config), trace=trace)
    if sealed.claim_check is None:
        wire = outbox.inline(fresh, TaskOptions(), config)
        return replace(record, envelope=wire) if wire else outbox.with_claim_check(record, fresh, store, config)
    if letter.payload is None:
        return replace(record, envelope=envelope.encode(fresh, config.signer))
    sealed.claim_check.check(letter.payload)
    return outbox.with_claim_check(record, replace(fresh, payload=letter.payload, claim_check=None), store, config)


def _routing_again(record: TaskRecord, config: Config) -> Routing:
    """Return the routing with a new name: the queue may refuse the old one, which would then count as sent."""
    return replace(record.routing, name=new_id(), eta=None, url=record.routing.url or config.post_url())


def drop(record_id: str, store: TaskStore) -> bool:
    """Delete a dead letter. Returns whether it was there, unchanged."""
    record = find(record_id, store)
    return store.delete([record_id], lease=record.lease) > 0


def expire(store: TaskStore, config: Config, time_left: Callable[[], bool] = lambda: True) -> Counter[str]:
    """Delete dead letters past their retention, as long as there is time left."""
    counts, before = Counter[str](), clock.now() - config.dead_retention
    while config.dead_retention and time_left():
        gone = store.expire(before, limit=EXPIRED_AT_ONCE)
        counts["expired"] += gone
        if gone < EXPIRED_AT_ONCE:
            break
    return counts
