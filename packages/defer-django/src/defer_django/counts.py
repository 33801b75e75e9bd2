"""How many records there are by state and queue, and what came of the attempts of the last hour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, QuerySet

from defer_core.spi import State, clock, current, declared_queues

from . import statistics
from .models import DeferredTask
from .statistics import Counts
from .store import DjangoTaskStore, is_datastore

DAY = 86400.0
MOST_QUEUES = 20
"""Queues that are counted on a Datastore, where each is a few queries."""
COUNTED = (State.PENDING.value, State.FAILING.value, State.DEAD.value)
"""The states that are counted by queue."""


@dataclass(frozen=True)
class Numbers:
    """The numbers of a database."""

    states: Mapping[str, int]
    """Records by state."""
    records: Mapping[tuple[str, str], int]
    """Records by queue and state."""
    late: int
    """Records that wait to be sent, and are overdue."""
    died: int
    """Dead letters of the last day."""
    attempts: Mapping[str, Counts]
    """The attempts of the last hour, by queue."""
    queues: list[str]
    """All that have records, attempts or a declaration."""

    def of(self, queue: str) -> tuple[int, int, int]:
        """Return how many records of a queue wait, fail and are dead."""
        waiting, failing, dead = (self.records.get((queue, state), 0) for state in COUNTED)
        return waiting, failing, dead


def read(alias: str) -> Numbers:
    """Read the numbers of a database: by three queries, on a Datastore by more."""
    rows, now, attempts = DeferredTask._base_manager.using(alias).order_by(), clock.now(), statistics.by_queue(alias)
    late = rows.filter(state=State.PENDING.value, due__lte=now)
    died = rows.filter(state=State.DEAD.value, last_attempt__gte=now - DAY)
    known = {*attempts, *declared_queues(current())}
    if is_datastore(alias):
        states = Counter({state.value: rows.filter(state=state.value).count() for state in State})
        keys = [(name, state) for name in sorted(known)[:MOST_QUEUES] for state in COUNTED if states[state]]
        records = {(name, state): rows.filter(queue=name, state=state).count() for name, state in keys}
        trouble = {State.PENDING.value: late.count(), State.DEAD.value: died.count()}
    else:
        records = {(queue, state): count for queue, state, count in _counted(rows, "queue", "state")}
        states = Counter[str]()
        for (_queue, state), count in records.items():
            states[state] += count
        trouble = dict(_counted(late, "state").union(_counted(died, "state"), all=True))
    return Numbers(
        states=states,
        records=records,
        late=trouble.get(State.PENDING.value, 0),
        died=trouble.get(State.DEAD.value, 0),
        attempts=attempts,
        queues=sorted(known.union(queue for queue, _state in records if queue)),
    )


def _counted(rows: QuerySet[DeferredTask], *columns: str) -> QuerySet[Any]:
    return rows.values_list(*columns).annotate(Count("pk"))


def rows(limit: int) -> list[dict[str, Any]]:
    """Return the numbers of at most `limit` queues for `defer_status`, those with most failing and dead tasks first."""
    aliases = [store.alias for store in current().every_store() if isinstance(store, DjangoTaskStore)]
    found = [_row(alias, queue, numbers) for alias in aliases for numbers in [read(alias)] for queue in numbers.queues]
    return sorted(found, key=lambda row: -row["failing"] - row["dead"])[:limit]


def _row(alias: str, queue: str, numbers: Numbers) -> dict[str, Any]:
    waiting, failing, dead = numbers.of(queue)
    attempts = numbers.attempts.get(queue, Counts())
    return {
        "queue": queue,
        "alias": alias,
        "waiting": waiting,
        "failing": failing,
        "dead": dead,
        "done": attempts.done,
        "failed": attempts.failed,
    }
