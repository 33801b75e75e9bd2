"""The numbers over the list: of each state, and of each queue."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from defer_core.spi import State

from ..counts import Numbers, read
from ..statistics import Counts
from ..words import number, share

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
    """The numbers of a database, as they are shown."""

    numbers: Numbers

    def cards(self) -> list[Card]:
        """Return the cards."""
        late, died = self.numbers.late, self.numbers.died
        are_late = ngettext("%(number)s is late", "%(number)s are late", late) % {"number": number(late)}
        have_died = ngettext("%(number)s since yesterday", "%(number)s since yesterday", died)
        return [
            self._card(_("Waiting to be sent"), State.PENDING, are_late if late else _("none is late"), late),
            self._card(_("Sent"), State.SENT, _("large ones, in their queues")),
            self._card(_("Failing"), State.FAILING, _("their queues try again")),
            self._card(_("Dead"), State.DEAD, have_died % {"number": number(died)}, died),
        ]

    def _card(self, title: str, state: State, note: str, bad: int = 0) -> Card:
        return Card(title, number(self.numbers.states.get(state, 0)), note, state.value, bad > 0)

    def rows(self) -> list[QueueRow]:
        """Return the rows of the table, a queue each."""
        return [self._row(name) for name in self.numbers.queues]

    def _row(self, name: str) -> QueueRow:
        waiting, failing, dead = map(number, self.numbers.of(name))
        attempts = self.numbers.attempts.get(name, Counts())
        total = attempts.done + attempts.failed
        failed = share(attempts.failed, total) if 100 * attempts.failed >= total else ""
        return QueueRow(name, waiting, failing, dead, number(attempts.done), number(attempts.failed), failed)


def of(request: HttpRequest, alias: str) -> Summary:
    """Return the numbers of a database, which are read once a request."""
    if request not in _read:
        _read[request] = Summary(read(alias))
    return _read[request]
