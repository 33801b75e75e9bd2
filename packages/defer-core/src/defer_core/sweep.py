"""The sweep: sends what a crash left behind, drops what was sent, wakes what other packages register."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from . import clock, dead, sending
from .config import Config, current
from .errors import TaskAlreadyExistsError
from .record import State, TaskRecord
from .stores.base import TaskStore

log = logging.getLogger("defer")

LEASE = 120.0
"""Seconds that a record is the sweep's that took it."""
PAGE = 20
"""Records that are leased at a time."""
IN_REQUEST = 1.0
"""Seconds that a sweep may take of a request."""

Sweeper = Callable[[float | None], int]
"""Takes the time by which to stop (seconds since the epoch, or None); returns how many things it woke."""
_sweepers: dict[str, Sweeper] = {}


def register_sweeper(name: str, sweeper: Sweeper) -> None:
    """Let every sweep also run `sweeper`; a later one of the same name replaces it."""
    _sweepers[name] = sweeper


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """What a sweep did."""

    counts: Counter[str] = field(default_factory=Counter)
    """`sent`, `dropped` (had been sent), `postponed`, `held`, `failed`, `expired`, and what the sweepers woke,
    under their names."""

    def __str__(self) -> str:
        return ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items())) or "nothing to do"


def sweep(*, budget: float | None = None) -> SweepReport:
    """Sweep every configured store, for at most `budget` seconds, half of which are kept for the sweepers, if any. What
    one store or sweeper raises is logged, counted as `failed`, and stops no other. Any number may run at once."""
    config, counts, began = current(), Counter[str](), clock.now()
    until = None if budget is None else began + budget
    halfway = began + budget / 2 if budget is not None and _sweepers else until
    for store in config.every_store():
        where = f"{store.name} {store.alias}".strip()
        counts.update(_guarded(partial(_sweep_store, store, config, halfway), f"The store {where}"))
    for name, sweeper in _sweepers.items():
        if _time_left(until):
            counts.update(_guarded(partial(_woken, name, sweeper, until), f"The sweeper {name!r}"))
    counts = +counts
    if counts:
        log.info("Sweep: %s", SweepReport(counts=counts))
    return SweepReport(counts=counts)


def _guarded(work: Callable[[], Counter[str]], what: str) -> Counter[str]:
    try:
        return work()
    except Exception:
        log.exception("%s could not be swept; the next sweep tries again.", what)
        return Counter(failed=1)


def _sweep_store(store: TaskStore, config: Config, until: float | None) -> Counter[str]:
    counts = Counter(dropped=_drop_sent(store))
    while _time_left(until) and (records := store.lease_due(now=clock.now(), limit=PAGE, seconds=LEASE)):
        # what is left of a page when the time is over is leased until its lease ends, and swept then
        counts.update(_sweep_one(record, store, config) for record in records if _time_left(until))
    counts["expired"] += dead.expire(store, config, until)
    return counts


def _drop_sent(store: TaskStore) -> int:
    """Drop the records of which this process knows that they were sent: the queue need not be asked about them."""
    count = 0
    while sent := store.forgotten.peek():
        store.put([], forget=sent)
        store.forgotten.drop(sent)
        count += len(sent)
    return count


def _woken(name: str, sweeper: Sweeper, until: float | None) -> Counter[str]:
    return Counter({name: sweeper(until)})


def _time_left(until: float | None) -> bool:
    return until is None or clock.now() < until


def _sweep_one(record: TaskRecord, store: TaskStore, config: Config) -> str:
    """Send one leased record; every change holds only while the lease does."""
    doubtful = record.doubtful_since
    if doubtful is not None and clock.now() - doubtful > config.name_window and not record.idempotent:
        store.mark(record.id, lease=record.lease, state=State.DEAD, reason="held")
        return "held"
    try:
        tried = sending.send(record, store, config)
    except Exception:
        log.exception("Record %s (%s) cannot be sent; the next sweep tries again.", record.id, record.label)
        return "failed"
    if tried.error is not None and not isinstance(tried.error, TaskAlreadyExistsError):
        sending.postpone(record, store, config, tried.error)
        return "postponed"
    if tried.record.is_claim:
        store.mark(record.id, lease=record.lease, state=State.SENT)
    else:
        store.delete([record.id], lease=record.lease)
    return "dropped" if tried.error is not None else "sent"


_last = 0.0
_lock = threading.Lock()


def after_task(config: Config) -> None:
    """Sweep in a handling process: at most once an interval, for at most a second. Never raises."""
    global _last
    if not config.sweep_interval or config.transport is None:
        return
    with _lock:
        if clock.now() - _last < config.sweep_interval:
            return
        _last = clock.now()
    try:
        sweep(budget=IN_REQUEST)
    except Exception:
        log.exception("The sweep after a task failed.")
