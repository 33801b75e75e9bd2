"""What the page of a task tells of it, without what may be a credential."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit, urlunsplit

from django.utils.translation import gettext as _

from defer_core.spi import Routing, call_of, current, is_envelope

from ..models import DeferredTask
from ..words import at, span
from .states import attempts_of

Facts = list[tuple[str, str]]
"""Names and values."""


@dataclass(frozen=True)
class Call:
    """The call of a task."""

    function: str
    arguments: Facts
    """By the names of the parameters, or by position; secrets are hidden."""
    unreadable: str = ""
    """Why there is no call to show."""


def call(task: DeferredTask) -> Call:
    """Return the call of a task in words; nothing of it is revived."""
    try:
        found = call_of(task.to_record(), current())
    except ValueError as error:
        return Call("", [], str(error))
    names = [(name or f"{place}.", value) for place, (name, value) in enumerate(found.arguments, 1)]
    return Call(found.function, names)


def facts(task: DeferredTask, limit: int | None, now: float) -> Facts:
    """Return what is known of a task, as far as it says something."""
    routing = Routing.from_json(task.routing)
    known = [
        (_("attempts"), attempts_of(task, limit)),
        (_("queue"), routing.queue),
        (_("deferred"), _ago(_deferred(task), now)),
        (_("first attempt"), _ago(task.first_attempt, now)),
        (_("last attempt"), _ago(task.last_attempt, now)),
        *_of_routing(routing),
        (_("not verified"), "" if task.verified else _("it came without a signature that holds")),
        (_("id"), task.pk),
    ]
    return [(name, value) for name, value in known if value]


def _deferred(task: DeferredTask) -> float | None:
    """Return when a task was deferred, if its body can be believed to say so; else the record is as old as an
    attempt."""
    return task.created if task.verified and is_envelope(bytes(task.envelope)) else None


def _ago(seconds: float | None, now: float) -> str:
    if seconds is None:
        return ""
    return _("%(at)s (%(time)s ago)") % {"at": at(seconds), "time": span(seconds, now)}


def _of_routing(routing: Routing) -> Iterator[tuple[str, str]]:
    retry = (
        {} if routing.retry is None else {key: each for key, each in asdict(routing.retry).items() if each is not None}
    )
    yield _("name in its queue"), routing.name or ""
    yield _("runs at"), "" if routing.eta is None else at(routing.eta)
    yield _("target"), ", ".join(filter(None, (routing.service, routing.version, routing.instance)))
    yield _("URL"), _without_secrets(routing.url or "")
    yield _("headers"), ", ".join(sorted(routing.headers))
    yield _("retry options"), ", ".join(f"{key}: {each}" for key, each in retry.items())
    yield _("time for an attempt"), "" if routing.dispatch_deadline is None else span(0, routing.dispatch_deadline)


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "…" if parts.query else "", ""))
