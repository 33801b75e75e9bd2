"""The numbers over the list: of each state, and of each queue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from django.db.models import Count
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from defer_core.spi import State, clock, current, declared_queues

from .. import statistics
from ..models import DeferredTask
from ..statistics import Counts
from ..store import is_datastore
from ..words import number, share

DAY = 86400.0
MOST_QUEUES = 20
"""Queues that are counted on a Datastore, where each is a few queries."""
COUNTED = (State.PENDING.value, State.FAILING.value, State.DEAD.value)
"""The states that are counted by queue."""
_read: WeakKeyDictionary[HttpRequest, Summary] = WeakKeyDictionary()


@dataclass(frozen=True)
class Card:
    """A number that is looked at first."""

    title: str
    number: str
    note: str
    state: str
    """What the list is narrowed to by it."""
    is_bad: bool = False


@dataclass(frozen=True)
class QueueRow:
    """The numbers of a queue."""

    name: str
    waiting: str
    failing: str
    dead: str
    done: str
    failed: str
    share_failed: str
    """The part of the attempts that failed, in percent; empty if that is less than one."""


@dataclass(frozen=True)
class Summary:
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

    def cards(self) -> list[Card]:
        """Return the cards."""
        late = ngettext("%(number)s is late", "%(number)s are late", self.late) % {"number": number(self.late)}
        died = ngettext("%(number)s since yesterday", "%(number)s since yesterday", self.died)
        return [
            self._card(_("Waiting to be sent"), State.PENDING, late if self.late else _("none is late"), self.late),
            self._card(_("Sent"), State.SENT, _("large ones, in their queues")),
            self._card(_("Failing"), State.FAILING, _("their queues try again")),
            self._card(_("Dead"), State.DEAD, died % {"number": number(self.died)}, self.died),
        ]

    def _card(self, title: str, state: State, note: str, bad: int = 0) -> Card:
        return Card(title, number(self.states.get(state, 0)), note, state.value, bad > 0)

    def rows(self) -> list[QueueRow]:
        """Return the rows of the table, a queue each."""
        return [self._row(name) for name in self.queues]

    def _row(self, name: str) -> QueueRow:
        waiting, failing, dead = (number(self.records.get((name, state), 0)) for state in COUNTED)
        attempts = self.attempts.get(name, Counts())
        total = attempts.done + attempts.failed
        failed = share(attempts.failed, total) if 100 * attempts.failed >= total else ""
        return QueueRow(name, waiting, failing, dead, number(attempts.done), number(attempts.failed), failed)


def of(request: HttpRequest, alias: str) -> Summary:
    """Return the numbers of a database, which are read once a request."""
    if request not in _read:
        _read[request] = read(alias)
    return _read[request]


def read(alias: str) -> Summary:
    """Read the numbers of a database: by four queries, on a Datastore by more."""
    rows, now, attempts = DeferredTask._base_manager.using(alias), clock.now(), statistics.by_queue(alias)
    declared = {*attempts, *declared_queues(current())}
    if is_datastore(alias):
        states = {state.value: rows.filter(state=state.value).count() for state in State}
        keys = [(name, state) for name in sorted(declared)[:MOST_QUEUES] for state in COUNTED if states[state]]
        records = {(name, state): rows.filter(queue=name, state=state).count() for name, state in keys}
    else:
        counted = rows.order_by().values_list("queue", "state").annotate(Count("pk"))
        records = {(queue, state): count for queue, state, count in counted}
        states = {}
        for (_queue, state), count in records.items():
            states[state] = states.get(state, 0) + count
    return Summary(
        states=states,
        records=records,
        late=rows.filter(state=State.PENDING.value, due__lte=now).count(),
        died=rows.filter(state=State.DEAD.value, last_attempt__gte=now - DAY).count(),
        attempts=attempts,
        queues=sorted(declared.union(queue for queue, _state in records if queue)),
    )
