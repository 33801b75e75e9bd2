"""The state of a task in words, and what happens to it next."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.text import format_lazy
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from defer_core.spi import State

from ..models import DeferredTask
from ..words import number, span

LATE = "late"
"""The condition of a record that waits to be sent, and is overdue."""
STATES = {
    State.PENDING.value: gettext_lazy("waiting to be sent"),
    State.SENT.value: gettext_lazy("sent"),
    State.FAILING.value: gettext_lazy("failing"),
    State.DEAD.value: gettext_lazy("dead"),
}
"""The states of records, in words."""
REASONS = {
    "permanent": gettext_lazy("permanent"),
    "gave up": gettext_lazy("gave up"),
    "silent": gettext_lazy("silent"),
    "exhausted": gettext_lazy("exhausted"),
    "held": gettext_lazy("held"),
    "missing payload": gettext_lazy("missing payload"),
    "unverified": gettext_lazy("unverified"),
    "unreadable": gettext_lazy("unreadable"),
    "expired": gettext_lazy("expired"),
    "wrong queue": gettext_lazy("wrong queue"),
}
"""Why a task is dead, in words."""
_MEND = gettext_lazy("Mend the cause and re-run it, or drop it.")
_ADVICE = {
    "permanent": format_lazy("{} {}", gettext_lazy("It failed in a way that no repetition would mend."), _MEND),
    "gave up": format_lazy("{} {}", gettext_lazy("Its queue does not try it again."), _MEND),
    "silent": gettext_lazy(
        "Its queue must have lost it. Was the queue purged, or is it paused? Then re-run it, or drop it."
    ),
    "exhausted": gettext_lazy("Its queue refused it again and again. Mend that, then re-run it."),
    "held": gettext_lazy("Whether its queue has it is not known. Look whether it ran, then re-run it, or drop it."),
    "missing payload": gettext_lazy("What it was to be called with is gone. Drop it."),
    "unverified": gettext_lazy("It came without a signature that holds. Drop it, unless you know its sender."),
    "unreadable": gettext_lazy(
        "No release, key or function that can read it is here. Bring that back, then re-run it."
    ),
    "expired": gettext_lazy("It came long after it was due. Drop it, or re-run it, which signs it anew."),
    "wrong queue": gettext_lazy("It was signed for another queue. Ask who put it there, then re-run it, or drop it."),
}
_NOT_SENT = ("exhausted", "held")
"""The reasons of tasks that never ran: their attempts are those to send them."""


@dataclass(frozen=True)
class Condition:
    """The state of a task, for people."""

    kind: str
    """A state, or LATE."""
    words: str
    """The same in words, with the reason of one that is dead."""


def condition_of(task: DeferredTask, now: float) -> Condition:
    """Return the state of a task at a time (seconds since the epoch)."""
    if task.state == State.PENDING and task.due <= now:
        return Condition(LATE, _("late"))
    words = str(STATES.get(task.state, task.state))
    if task.reason:
        words = _("%(state)s: %(reason)s") % {"state": words, "reason": REASONS.get(task.reason, task.reason)}
    return Condition(task.state, words)


def attempts_of(task: DeferredTask, limit: int | None) -> str:
    """Return how often a task was attempted, and of how many times if there is a limit."""
    if task.state == State.PENDING or task.reason in _NOT_SENT:
        tries = ngettext("%(number)s try to send it", "%(number)s tries to send it", task.attempts)
        return tries % {"number": number(task.attempts)} if task.attempts else "–"
    if not task.attempts:
        return "–"
    if limit is None:
        return number(task.attempts)
    return _("%(number)s of %(limit)s") % {"number": number(task.attempts), "limit": number(limit)}


def next_of(task: DeferredTask, limit: int | None, now: float) -> str:
    """Return what happens to a task next, or what a person can do for it."""
    match task.state:
        case State.PENDING:
            return _next_of_waiting(task, now)
        case State.SENT:
            return _("Its queue has it. What is kept of it here goes once it has run.")
        case State.FAILING:
            return _next_of_failing(task, limit)
        case State.DEAD:
            return str(_ADVICE.get(task.reason, _MEND))
    return ""


def _next_of_waiting(task: DeferredTask, now: float) -> str:
    if task.due <= now:
        late = _("It should have been sent %(time)s ago. Does anything sweep, and does the queue answer?")
        return late % {"time": span(task.due, now)}
    if task.attempts:
        return _("Its queue did not take it. It is sent again in %(time)s.") % {"time": span(now, task.due)}
    return _(
        "It has just been sent, or waits for a commit. If its process has ended, the sweep sends it in %(time)s."
    ) % {"time": span(now, task.due)}


def _next_of_failing(task: DeferredTask, limit: int | None) -> str:
    again = _("Its queue has it, and tries it again by itself.")
    if limit is None or limit <= task.attempts:
        return again
    left = ngettext(
        "%(number)s attempt is left; after that it is dead.",
        "%(number)s attempts are left; after that it is dead.",
        limit - task.attempts,
    )
    return f"{again} {left % {'number': number(limit - task.attempts)}}"
