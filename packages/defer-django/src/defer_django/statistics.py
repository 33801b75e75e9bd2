"""How many attempts of each queue succeed and fail, by the minute: counted in the process, written by its sweep.

A task costs no write of its own. A process that is killed loses the counts since its last sweep.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from django.db import DatabaseError, IntegrityError, transaction
from django.db.models import F, QuerySet, Sum

from defer_core.spi import Attempt, Ending, clock, current, one_line, storable

from .datastore import begun_again
from .models import Minute
from .store import DjangoTaskStore, delete, is_datastore, is_forbidden

log = logging.getLogger("defer")

KEPT = 86400.0
"""Seconds for which a minute is kept."""
MOST = 10_000
"""Minutes, each of one queue, that wait to be written; more are not counted."""


@dataclass(frozen=True)
class Counts:
    """How many attempts there were."""

    done: int = 0
    """Those that succeeded, or had nothing to do."""
    failed: int = 0
    """Those that raised, or whose task will not run again."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.done + other.done, self.failed + other.failed)


Key = tuple[int, str]
"""The beginning of a minute, in seconds since the epoch, and the queue."""
_waiting: dict[Key, Counts] = {}
_lock = threading.Lock()


def count(attempt: Attempt) -> None:
    """Count an attempt that has ended; one that asked to be repeated has neither succeeded nor failed."""
    if attempt.ending is not Ending.RETRY:
        queue = storable(attempt.delivery.queue)[: Minute._meta.get_field("queue").max_length] or "default"
        one = Counts(done=1) if attempt.ending is Ending.DONE else Counts(failed=1)
        _wait({(int(clock.now() // 60 * 60), queue): one})


def _wait(counts: Mapping[Key, Counts]) -> None:
    with _lock:
        for key, more in counts.items():
            if key in _waiting or len(_waiting) < MOST:
                _waiting[key] = _waiting.get(key, Counts()) + more


def write(until: float | None = None) -> int:
    """Write what this process has counted: one statement a minute and queue. What a database refuses waits for the next
    sweep. Returns 0, for a sweep counts what was requeued."""
    alias = _alias()
    if not _waiting or alias is None or is_forbidden(alias):
        return 0
    with _lock:
        counts = dict(sorted(_waiting.items()))  # in one order, or processes would wait for each other
        _waiting.clear()
    try:
        while counts:
            key = next(iter(counts))
            _add(alias, key, counts[key])
            del counts[key]
    except DatabaseError as error:
        log.warning("Statistics could not be written; the next sweep will retry: %s", one_line(error))
    finally:
        _wait(counts)
    return 0


def _alias() -> str | None:
    """Return the database of the configured store; None if it is no Django database."""
    return next((store.alias for store in current().stores if isinstance(store, DjangoTaskStore)), None)


def _add(alias: str, key: Key, counts: Counts) -> None:
    add = _add_entity if is_datastore(alias) else _add_row
    if add(alias, key, counts):
        delete_old(alias)


def _add_row(alias: str, key: Key, counts: Counts) -> bool:
    """Add to a row. Return True if it is new."""
    row = _rows(alias).filter(pk=_id(key))
    more = {"done": F("done") + counts.done, "failed": F("failed") + counts.failed}
    with transaction.atomic(using=alias):
        if row.update(**more):
            return False
        new = _row(key, counts)
        try:
            with transaction.atomic(using=alias):
                new.save(using=alias, force_insert=True)
        except IntegrityError:  # another process was faster
            row.update(**more)
            return False
    return True


def _add_entity(alias: str, key: Key, counts: Counts) -> bool:
    """Do the same on a Datastore, which cannot add."""

    def add() -> bool:
        with transaction.atomic(using=alias):
            known = _rows(alias).filter(pk=_id(key)).first()
            before = Counts(known.done, known.failed) if known else Counts()
            _row(key, before + counts).save(using=alias)
            return known is None

    return begun_again(add)


def delete_old(alias: str) -> None:
    """Delete the minutes that are no longer kept."""
    old = _rows(alias).filter(minute__lt=clock.now() - KEPT)
    if is_datastore(alias):
        old.delete()
    else:
        delete(old)


def _row(key: Key, counts: Counts) -> Minute:
    minute, queue = key
    return Minute(pk=_id(key), minute=minute, queue=queue, done=counts.done, failed=counts.failed)


def _id(key: Key) -> str:
    return f"{key[0]}/{key[1]}"


def _rows(alias: str) -> QuerySet[Minute]:
    return Minute._base_manager.using(alias)


def by_queue(alias: str, seconds: float = 3600.0) -> dict[str, Counts]:
    """Return what was counted in the last `seconds`, by queue; minutes count as a whole."""
    rows = _rows(alias).filter(minute__gt=clock.now() - seconds - 60)
    if is_datastore(alias):
        found = ((row.queue, row.done, row.failed) for row in rows)
    else:
        found = rows.values_list("queue").annotate(Sum("done"), Sum("failed"))
    totals: dict[str, Counts] = {}
    for queue, done, failed in found:
        totals[queue] = totals.get(queue, Counts()) + Counts(done, failed)
    return totals
