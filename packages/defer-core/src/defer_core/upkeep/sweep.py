"""The sweep: sends what a crash left behind, drops what was sent, and runs the sweepers of other packages."""

from __future__ import annotations

import itertools
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from .. import clock
from ..config import Config, current
from ..errors import TaskAlreadyExistsError
from ..record import State, TaskRecord, dead
from ..send.dispatch import Dispatch
from ..stores.base import TaskStore
from ..telemetry import metrics
from ..text import one_line
from . import dead_letters, failing

log = logging.getLogger("defer")

LEASE = 120.0
"""Seconds for which a sweep leases a record."""
PAGE = 20
"""Records that are leased at a time."""
IN_REQUEST = 1.0
"""Seconds that a sweep may take of a request."""

T = TypeVar("T")
Sweeper = Callable[[float | None], int]
"""Takes the time by which to stop (seconds since the epoch, or None); returns how many things it requeued."""
_sweepers: dict[str, Sweeper] = {}
_turns = itertools.count()


def register_sweeper(name: str, sweeper: Sweeper) -> None:
    """Make every sweep also run `sweeper`; a later one of the same name replaces it."""
    _sweepers[name] = sweeper


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """The result of a sweep."""

    counts: Counter[str] = field(default_factory=Counter)
    """`sent`, `dropped` (sent before), `postponed`, `held`, `failed`, `silent` (dropped by their queue), `expired`, and
    what the sweepers requeued, under their names."""

    def __str__(self) -> str:
        return ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items())) or "nothing to do"


def sweep(*, budget: float | None = None) -> SweepReport:
    """Sweep every configured store, for at most `budget` seconds, half of which are reserved for the sweepers, if any.
    Each gets its share of the time, and each sweep starts with another one. What one store or sweeper raises is logged,
    counted as `failed`, and does not stop the others. Any number of sweeps may run at once."""
    config, counts, began = current(), Counter[str](), clock.now()
    until = None if budget is None else began + budget
    halfway = began + budget / 2 if budget is not None and _sweepers else until
    turn = next(_turns)
    for store, share in _shared(_turned(config.every_store(), turn), halfway):
        where = f"{store.name} {store.alias}".strip()
        counts.update(_guarded(partial(_sweep_store, store, config, share), f"The store {where}"))
    for (name, sweeper), share in _shared(_turned([*_sweepers.items()], turn), until):
        if _time_left(until):
            counts.update(_guarded(partial(_run_sweeper, name, sweeper, share), f"The sweeper {name!r}"))
    counts = +counts
    metrics.swept(counts)
    if counts:
        log.info("Sweep: %s", SweepReport(counts=counts))
    return SweepReport(counts=counts)


def _turned(all_: Sequence[T], turn: int) -> Sequence[T]:
    """Return the same items, starting with another one at each turn."""
    first = turn % len(all_) if all_ else 0
    return [*all_[first:], *all_[:first]]


def _shared(all_: Sequence[T], until: float | None) -> Iterator[tuple[T, float | None]]:
    """Yield each with the time by which it must stop: its share of what is left when its turn comes."""
    for at, each in enumerate(all_):
        now = clock.now()
        yield each, None if until is None else now + max(0.0, until - now) / (len(all_) - at)


def _guarded(work: Callable[[], Counter[str]], what: str) -> Counter[str]:
    try:
        return work()
    except Exception:
        log.exception("%s could not be swept; the next sweep will retry.", what)
        return Counter(failed=1)


def _sweep_store(store: TaskStore, config: Config, until: float | None) -> Counter[str]:
    """Run the steps for one store; sending comes last, as it may take all the time there is."""
    counts = Counter[str]()
    for step, share in _shared((_drop_sent, failing.give_up, dead_letters.expire, _send_due), until):
        counts += step(store, config, partial(_time_left, share))
    return counts


def _send_due(store: TaskStore, config: Config, time_left: Callable[[], bool]) -> Counter[str]:
    counts = Counter[str]()
    while time_left() and (records := store.lease_due(now=clock.now(), limit=PAGE, seconds=LEASE)):
        # records of a page that the time does not suffice for stay leased until their lease ends, and are swept then
        counts.update(_sweep_one(record, store, config) for record in records if time_left())
    return counts


def _drop_sent(store: TaskStore, config: Config, time_left: Callable[[], bool]) -> Counter[str]:
    """Drop the records that this process knows were sent: the queue need not be asked about them."""
    counts = Counter[str]()
    while time_left() and (sent := store.forgotten.peek()):
        store.put([], forget=sent)
        store.forgotten.drop(sent)
        counts["dropped"] += len(sent)
    return counts


def _run_sweeper(name: str, sweeper: Sweeper, until: float | None) -> Counter[str]:
    return Counter({name: sweeper(until)})


def _time_left(until: float | None) -> bool:
    return until is None or clock.now() < until


def _sweep_one(record: TaskRecord, store: TaskStore, config: Config) -> str:
    """Send one leased record. A failure does not hold up the others."""
    try:
        return _sent(record, store, config)
    except Exception:
        names = record.id, one_line(record.label), record.attempts + 1
        log.exception("Task %s (%s) was not swept (attempt %d); the next sweep will retry.", *names)
        return "failed"


def _sent(record: TaskRecord, store: TaskStore, config: Config) -> str:
    """Send a record, or make it a dead letter if that is unsafe. Every change applies only as long as the lease
    does."""
    doubtful = record.doubtful_since
    if doubtful is not None and clock.now() - doubtful > config.name_window and not record.idempotent:
        if store.mark(record.id, lease=record.lease, **dead("held")):
            metrics.died(record.routing.queue, record.label, "held")
        return "held"
    dispatch = Dispatch(record=record, store=store, config=config)
    error = dispatch.send()
    if error is not None and not isinstance(error, TaskAlreadyExistsError):
        dispatch.postpone(error)
        return "postponed"
    if dispatch.record.is_claim_check:
        store.mark(record.id, lease=record.lease, state=State.SENT)
    else:
        store.delete([record.id], lease=record.lease)
    return "dropped" if error is not None else "sent"


_last = 0.0
_lock = threading.Lock()


def after_task(config: Config) -> None:
    """Sweep in a handling process: at most once an interval, for at most a second. Never raises."""
    global _last
    if not config.sweep_interval or config.transport is None:
        return
    with _lock:
        if 0 <= clock.now() - _last < config.sweep_interval:  # less than 0 where the clock was set back
            return
        _last = clock.now()
    try:
        sweep(budget=IN_REQUEST)
    except Exception:
        log.exception("The sweep after a task failed.")
