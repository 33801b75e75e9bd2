"""`manage.py defer_iterations`: list iterations, watch their progress, and pause, resume, cancel or forget one."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from datetime import datetime, timezone
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error as DatabaseError

from defer_core.spi import add_watch_argument, clock, last_line, one_line, printable

from ...errors import UnknownIterationError
from ...handle import IterationHandle, Progress
from ...model.counters import Collected
from ...model.iteration import Iteration, IterationState
from ...model.shard import Shard
from ...stores.base import IterationStore
from ...stores.routing import all_stores

ACTIONS = ("pause", "resume", "cancel", "retry-quarantined", "show", "forget")
WIDTH = 24
"""How many characters a bar has."""
LONGEST_SET = 2_000
"""How many characters of the values that were collected are shown."""


class Command(BaseCommand):
    """List iterations; with an action and a name or an id (or its beginning), act on one."""

    help = "List iterations with their progress; watch, pause, resume, cancel or forget them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", nargs="?", choices=ACTIONS, help="what to do with one iteration")
        parser.add_argument("id", nargs="?", help="its name, or its id or the beginning of that")
        add_watch_argument(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self._do(options)
        except DatabaseError as error:
            raise CommandError(f"A database of iterations cannot be used: {one_line(error)}") from error

    def _do(self, options: dict[str, Any]) -> None:
        if options["action"]:
            self._act(options["action"], _found(options["id"]))
        elif options["watch"] is not None:
            self._watch(options["watch"])
        else:
            self._list({})

    def _say(self, text: str) -> None:
        self.stdout.write(printable(text))

    def _act(self, action: str, handle: IterationHandle) -> None:
        if action == "show":
            self._show(handle)
            return
        done = getattr(handle, action.replace("-", "_"))()
        if not done:
            raise CommandError(f"Iteration {handle.id} is {handle.progress().state}: there is nothing to {action}.")
        self._say(f"{handle.id}: {action}")

    def _show(self, handle: IterationHandle) -> None:
        """Print one iteration, with its shards and quarantined rows."""
        progress = handle.progress()
        self._say("  ".join(filter(None, (handle.id, progress.name, progress.state, progress.reason))))
        if progress.error:
            self._say(f"  {_failed(progress)}")
        for shard in progress.shards:
            state = "done" if shard.done else f"at {shard.position!r}, generation {shard.generation}"
            failing = f", {shard.failing!r} has raised {shard.attempts} times" if shard.attempts else ""
            self._say(f"  shard {shard.index:>4}  {shard.rows:>10,} rows  {state}{failing}")
            if shard.error:
                self._say(f"    {_failed(shard)}")
        for name, value in sorted(progress.counters.items()):
            said = one_line(value, LONGEST_SET) if isinstance(value, Collected) else f"{value:,}"
            self._say(f"  {one_line(name)}: {said}")
        for row in progress.quarantined:
            self._say(f"  quarantined {row.key!r} after {row.attempts} calls: {last_line(row.error)}")

    def _watch(self, seconds: float) -> None:
        """Show progress until nothing is under way."""
        before: dict[str, tuple[float, int]] = {}
        try:
            while self._list(before):
                time.sleep(seconds)
                if self.stdout.isatty():
                    self.stdout.write("\x1b[H\x1b[2J", ending="")
        except KeyboardInterrupt:
            return

    def _list(self, before: dict[str, tuple[float, int]]) -> int:
        """Print a line for each iteration, and return how many are under way. `before` has when each was first seen,
        and its rows then."""
        under_way = 0
        for store, iteration in _all():
            try:
                progress = IterationHandle(id=iteration.id, alias=store.alias).progress()
            except UnknownIterationError:  # it has ended meanwhile
                continue
            first = before.setdefault(iteration.id, (clock.now(), progress.rows))
            self._say(line(iteration, progress, first))
            under_way += not (progress.state.is_over or progress.state is IterationState.FAILED)
        if not before:
            self._say("There are no iterations.")
        return under_way


def line(iteration: Iteration, progress: Progress, first: tuple[float, int]) -> str:
    """Return the line of an iteration: id, name, label, state, bar, rows, shards, rate, time left, reason or error."""
    rows, total = progress.rows, progress.total
    title = f"{iteration.name} ({iteration.label})" if iteration.name else iteration.label
    parts = [iteration.id[:8], f"{title:30}", f"{progress.state:10}", bar(rows, total)]
    parts.append(f"{rows:,} of {total:,}" if total is not None else f"{rows:,}")
    if progress.shards or not iteration.state.is_over:
        parts.append(f"{sum(shard.done for shard in progress.shards)}/{len(progress.shards)} shards")
    seconds = clock.now() - first[0]
    rate = (rows - first[1]) / seconds if seconds > 0 else 0.0
    if rate > 0:
        parts.append(f"{rate:,.0f} rows/s")
        if total is not None and total > rows:
            parts.append(f"{(total - rows) / rate:,.0f} s left")
    if progress.quarantined:
        parts.append(f"{len(progress.quarantined)} quarantined")
    if iteration.finished:
        parts.append(_time(iteration.finished))
    errors = [progress.reason, progress.error, *(each.error for each in progress.shards)]
    if said := next(filter(None, errors), ""):
        parts.append(last_line(said)[:100])
    return "  ".join(parts)


def _failed(noun: Progress | Shard) -> str:
    """Return what was raised last, when, and how many attempts have failed."""
    attempts = f" ({noun.errors} attempts have failed)" if noun.errors else ""
    return f"{_time(noun.failed_at)}  {last_line(noun.error)}{attempts}"


def _time(at: float | None) -> str:
    return f"{datetime.fromtimestamp(at or 0.0, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def bar(rows: int, total: int | None) -> str:
    """Return how much is done as a bar; dots if the total is unknown."""
    if total is None:
        return "[" + "." * WIDTH + "]"
    full = WIDTH if not total else min(WIDTH * rows // total, WIDTH)
    return "[" + "#" * full + " " * (WIDTH - full) + "]"


def _all() -> list[tuple[IterationStore, Iteration]]:
    """Return all iterations, oldest first. Raise CommandError if nothing stores them."""
    found: list[tuple[IterationStore, Iteration]] = []
    stores = all_stores()
    if not stores:
        raise CommandError(
            "No database with tasks has the tables of iterations: run manage.py migrate, and let DEFER name the Django "
            "store."
        )
    for store in stores:
        after = ""
        while page := store.list(after=after):
            found += [(store, iteration) for iteration in page]
            after = page[-1].id
    return sorted(found, key=lambda each: each[1].created)


def _found(given: str | None) -> IterationHandle:
    if not given:
        raise CommandError("Say which iteration: its name, or its id or the beginning of that.")
    known = _all()
    found = [each for each in known if each[1].name == given] or [
        each for each in known if each[1].id.startswith(given)
    ]
    if len(found) != 1:
        raise CommandError(f"{len(found) or 'No'} iterations have that name, or an id that begins with it: {given!r}.")
    ((store, iteration),) = found
    return IterationHandle(id=iteration.id, alias=store.alias)
