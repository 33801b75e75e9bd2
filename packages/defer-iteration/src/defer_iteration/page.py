"""What the pages of the admin show of iterations: in words, with secrets hidden, and with nothing of them revived."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from django.db.models import QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, pgettext_lazy

from defer_core.spi import clock, current, describe_call_in, describe_members, last_line, one_line
from defer_django.store import is_datastore
from defer_django.words import at, number, share, span

from . import models
from .handle import Progress, progress_of
from .model.counters import Collected
from .model.iteration import Iteration, IterationOptions, IterationState, QuarantinedRow
from .model.shard import Key, KeyRange, Shard
from .model.transitions import WHOLE
from .model.words import HIDDEN, is_secret, key_in_words
from .stores import columns

SHOWN = 64
"""How many shards, and how many quarantined rows, a page has at most."""
STATES = {
    IterationState.NEW: gettext_lazy("new"),
    IterationState.RUNNING: gettext_lazy("running"),
    IterationState.PAUSED: gettext_lazy("paused"),
    IterationState.HELD: pgettext_lazy("iteration", "held"),
    IterationState.FAILED: gettext_lazy("failed"),
    IterationState.CANCELLED: gettext_lazy("cancelled"),
    IterationState.FINALIZING: gettext_lazy("finalizing"),
    IterationState.DONE: gettext_lazy("done"),
}
"""The states, in words."""
Facts = list[tuple[str, str]]
"""Names and values."""
_LONGEST_SET = 2_000
"""How many characters of the values that were collected are shown."""
_SHOWN_APART = {
    "queue",
    "shards",
    "order_field",
    "delete_marker",
    "on_error",
    "max_attempts",
    "on_failed",
    "rebalance",
    "trace",
}
"""Options that are shown in words, or say nothing that a person looks for."""
_MODEL = re.compile(rb"\x93\x94(?:\x8c.([\w.]+)\x94|h.)\x8c.([\w.]+)\x94\x93", re.DOTALL)
"""The second class in a pickle, after that of the queryset: a module, unless that is the same, and a name."""


# --- the list ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What the shards of an iteration have come to."""

    rows: int = 0
    """How many rows they have finished."""
    shards: int = 0
    """How many there are."""
    done: int = 0
    """How many of them are done."""
    failing: int = 0
    """How many have failed since they last finished a row."""

    def __str__(self) -> str:
        return _("%(done)s of %(shards)s") % {"done": self.done, "shards": self.shards}

    @property
    def trouble(self) -> str:
        """How many fail, in words."""
        return ngettext("%(number)s failing", "%(number)s failing", self.failing) % {"number": self.failing}


def tallies(ids: Sequence[str], alias: str) -> dict[str, Tally]:
    """Return what the shards of some iterations have come to, by the id of the iteration. One query."""
    found = models.Shard.objects.using(alias).filter(iteration__in=ids)
    shards: dict[str, list[models.Shard]] = {each: [] for each in ids}
    for row in without(found, "range", "position", "failing", "rest", "counters", "error"):
        shards[row.iteration].append(row)
    return {each: _tally(its) for each, its in shards.items()}


def without(found: QuerySet[Any], *large: str) -> QuerySet[Any]:
    """Leave out large columns; not on Datastore, which would need an index of all others."""
    return found if is_datastore(found.db) else found.defer(*large)


def _tally(shards: Sequence[Shard | models.Shard]) -> Tally:
    return Tally(
        rows=sum(each.rows for each in shards),
        shards=len(shards),
        done=sum(each.done for each in shards),
        failing=sum(map(_is_failing, shards)),
    )


def _is_failing(shard: Shard | models.Shard) -> bool:
    return not shard.done and bool(shard.attempts or shard.errors)


def of_total(rows: int, total: int | None) -> str:
    """Return how many rows are done, of how many if that is known."""
    if total is None:
        return number(rows)
    return _("%(rows)s of %(total)s") % {"rows": number(rows), "total": number(total)}


# --- one iteration ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Error:
    """What was raised last."""

    where: str
    """What has raised it: the plan, `finalize`, or a shard with its row."""
    times: int
    """How often in a row; 0 if that is not counted any more."""
    when: str
    """When the last time was; empty if that is unknown."""
    text: str
    """The traceback."""

    @property
    def line(self) -> str:
        """The last line of the traceback."""
        return last_line(self.text)


@dataclass(frozen=True, kw_only=True)
class Bar:
    """How much of something is done."""

    value: int
    """How many rows, `most` at most."""
    most: int
    """How many there are."""
    kind: str = ""
    """A class of the style sheet."""


@dataclass(frozen=True, kw_only=True)
class ShardLine:
    """A shard as a line of a table."""

    shard: Shard
    """Its keys in words."""
    rows: str
    """How many it has finished."""
    bar: Bar | None
    """How many of its equal share it has finished; None if nobody knows how many rows there are."""
    keys: str
    """Its range."""
    position: str
    """The last key that is finished."""
    stalled: bool
    """Whether no task seems to work on it."""
    error: Error | None
    """What it has raised, until it finishes a row again."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """An iteration as its page shows it."""

    progress: Progress
    """Its keys in words."""
    state: str
    """Where it stands, in words."""
    rows: str
    """How many rows it has finished, of how many."""
    share: str
    """The same in percent."""
    bar: Bar | None
    """None if nobody knows how many rows there are."""
    moving: bool
    """Whether rows are being finished."""
    average: float
    """How many rows a second, since it began."""
    stalled: bool
    """Whether no task seems to work on its plan or `finalize`."""
    reason: str
    """Why it is stopped."""
    error: Error | None
    """The last one."""
    counters: Facts
    """The numbers that callbacks have counted."""
    facts: Facts
    """What else there is to know, and the sets that callbacks have collected."""
    shards: Sequence[ShardLine]
    """Those that fail first, then the others that are open; SHOWN at most."""
    hidden_shards: int
    """How many are not shown."""
    quarantined: Sequence[tuple[str, Error]]
    """Quarantined rows, each by its key; SHOWN at most."""
    quarantined_number: int
    """How many there are."""


def page_of(row: models.Iteration, alias: str) -> Page:
    """Return the page of an iteration. Two queries; three if more rows are quarantined than are shown."""
    iteration, keys = columns.as_iteration(row), _Keys(columns.as_iteration(row).options.order_field)
    found = models.QuarantinedRow.objects.using(alias).filter(iteration=row.pk)
    shards = [columns.as_shard(each, keys.read) for each in models.Shard.objects.using(alias).filter(iteration=row.pk)]
    quarantined = sorted(
        (columns.as_quarantined(each, keys.read) for each in found[: SHOWN + 1]), key=lambda each: each.index
    )
    progress = progress_of(iteration, sorted(shards, key=lambda each: each.index), quarantined)
    counted = sorted(progress.counters.items())
    urgent = sorted(progress.shards, key=lambda each: (not _is_failing(each), each.done))
    return Page(
        progress=progress,
        state=str(STATES[iteration.state]),
        rows=of_total(progress.rows, progress.total),
        share=share(progress.rows, progress.total),
        bar=_bar(progress.rows, progress.total, "is-done" if iteration.state is IterationState.DONE else ""),
        moving=iteration.state is IterationState.RUNNING,
        average=progress.rows / max(clock.now() - iteration.created, 1.0),
        stalled=iteration.state in WHOLE and iteration.due < clock.now(),
        reason=last_line(iteration.reason) if keys.hidden else _in_short(iteration.reason),  # it may name a key
        error=_last_error(iteration, progress.shards, keys),
        counters=[(one_line(name), number(value)) for name, value in counted if not isinstance(value, Collected)],
        facts=_facts(iteration, _tally(progress.shards))
        + [_collected(*each) for each in counted if isinstance(each[1], Collected)],
        shards=[_shard_line(each, progress, keys) for each in urgent[:SHOWN]],
        hidden_shards=max(len(urgent) - SHOWN, 0),
        quarantined=[(keys.text(each.key), _error(each, keys)) for each in quarantined[:SHOWN]],
        quarantined_number=len(quarantined) if len(quarantined) <= SHOWN else found.count(),
    )


class _Keys:
    """Keys in words."""

    def __init__(self, order_field: str) -> None:
        self.read = partial(describe_members, levels=2, secrets=current().secrets)
        """Unpacks a key as a tuple of words, and a range as bounds of that kind."""
        self.order_field, self.hidden = order_field, is_secret(order_field)

    def text(self, key: Key | None) -> str:
        """Return a key; what is beyond all keys is `…`."""
        return key_in_words(key, self.order_field)

    def range(self, bounds: KeyRange) -> str:
        """Return a range of keys."""
        said = f"{self.text(bounds.lower)} – {self.text(bounds.upper)}"
        return _("without a value: %(keys)s") % {"keys": said} if bounds.nulls else said


def _collected(name: str, values: Collected) -> tuple[str, str]:
    return one_line(name), HIDDEN if is_secret(name) else one_line(values, _LONGEST_SET)


def _bar(value: int, most: int | None, kind: str = "") -> Bar | None:
    return Bar(value=min(value, most), most=most, kind=kind) if most else None


def _shard_line(shard: Shard, progress: Progress, keys: _Keys) -> ShardLine:
    equal = None if progress.total is None else -(-progress.total // len(progress.shards))
    kind = "is-done" if shard.done else "is-failing" if _is_failing(shard) else ""
    return ShardLine(
        shard=shard,
        rows=number(shard.rows),
        bar=_bar((equal or 0) if shard.done else shard.rows, equal, kind),
        keys=keys.range(shard.range),
        position="–" if shard.position is None else keys.text(shard.position),
        stalled=progress.state is IterationState.RUNNING and not shard.done and shard.due < clock.now(),
        error=_error(shard, keys) if shard.error else None,
    )


def _last_error(iteration: Iteration, shards: Iterable[Shard], keys: _Keys) -> Error | None:
    nouns: list[Iteration | Shard] = [iteration, *shards]
    last = max((each for each in nouns if each.error), key=lambda each: each.failed_at or 0.0, default=None)
    return None if last is None else _error(last, keys)


def _error(noun: Iteration | Shard | QuarantinedRow, keys: _Keys) -> Error:
    match noun:
        case Iteration():
            where, times = (
                _("the plan") if IterationState.NEW in (noun.state, noun.resumes) else "finalize",
                noun.errors,
            )
        case Shard() if noun.attempts:
            where = _("shard %(number)s, row %(key)s") % {"number": noun.index, "key": keys.text(noun.failing)}
            times = noun.attempts
        case Shard():
            where, times = _("shard %(number)s") % {"number": noun.index}, noun.errors
        case QuarantinedRow():
            return Error(
                where=_("shard %(number)s") % {"number": noun.index}, times=noun.attempts, when="", text=noun.error
            )
    return Error(where=where, times=times, when=at(noun.failed_at or 0.0), text=noun.error)


def _in_short(reason: str) -> str:
    """Return why an iteration is stopped, with the last line alone of a traceback in it."""
    said, found, traceback = reason.partition("Traceback (most recent call last)")
    return said + last_line(traceback) if found else reason


# --- what it does, and how --------------------------------------------------------------------------------------------


def _facts(iteration: Iteration, tally: Tally) -> Facts:
    options, end = iteration.options, iteration.finished
    return [
        *([(_("shards done"), f"{tally}, {tally.trouble}" if tally.failing else str(tally))] if tally.shards else []),
        (_("started"), at(iteration.created)),
        *([(_("age"), span(iteration.created, clock.now()))] if end is None else []),
        *([] if end is None else [(_("ended"), at(end)), (_("took"), span(iteration.created, end))]),
        *_calls(iteration),
        (_("queue"), options.queue),
        (_("ordered by"), options.order_field),
        (_("a row that raises"), _on_error(options)),
        *([(_("options"), said)] if (said := _others(options)) else []),
        (_("id"), iteration.id),
    ]


def _calls(iteration: Iteration) -> Facts:
    """Return the rows, and what is called."""
    job, row = iteration.job, "…" if iteration.options.batch is None else "[…]"
    try:
        source, _callback, finalize, _args, _kwargs, _ranges, *others = describe_members(job, secrets=current().secrets)
        call = describe_call_in(job, callee=1, args=3, kwargs=4, before=[row], config=current())
    except ValueError:
        return []
    names = (_("when it fails"), _("throttle"))
    found = _MODEL.search(job) if source.startswith("{") else None
    return [
        (_("rows"), b".".join(filter(None, found.groups())).decode() if found else source),
        (_("callback"), call),
        ("finalize", finalize),
        *((name, said) for name, said in zip(names, others, strict=False) if said is not None),
    ]


def _on_error(options: IterationOptions) -> str:
    if options.max_attempts is None:
        return _("is called again")
    number = options.max_attempts
    if options.on_error == "quarantine":
        return ngettext("is set aside after %(number)s call", "is set aside after %(number)s calls", number) % {
            "number": number
        }
    return ngettext(
        "fails the iteration after %(number)s call", "fails the iteration after %(number)s calls", number
    ) % {"number": number}


def _others(options: IterationOptions) -> str:
    """Return the options that somebody has chosen, as they are written in the call."""
    chosen = [
        f"_{each.name}={value!r}"
        for each in fields(options)
        if each.name not in _SHOWN_APART and (value := getattr(options, each.name)) != each.default
    ]
    return ", ".join(chosen)
