"""`manage.py defer_iterations`: lists iterations, watches their progress, and pauses, resumes or cancels one."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from datetime import datetime, timezone
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from defer_core import clock

from ...base import IterationStore
from ...errors import UnknownIterationError
from ...handle import IterationHandle, Progress
from ...iteration import Iteration
from ...stores import all_stores

ACTIONS = ("pause", "resume", "cancel", "retry-quarantined", "show")
WIDTH = 24
"""Characters of a bar."""


class Command(BaseCommand):
    """Lists iterations; with an action and an id (or its beginning), acts on one."""

    help = "List iterations with their progress; watch, pause, resume or cancel them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", nargs="?", choices=ACTIONS, help="what to do with one iteration")
        parser.add_argument("id", nargs="?", help="its id, or the beginning of it")
        parser.add_argument("--watch", action="store_true", help="go on showing progress until nothing is under way")
        parser.add_argument("--interval", type=float, default=1.0, help="seconds between two looks (default 1)")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["action"]:
            self._act(options["action"], _found(options["id"]))
        elif options["watch"]:
            self._watch(options["interval"])
        else:
            self._list({})

    def _act(self, action: str, handle: IterationHandle) -> None:
        if action == "show":
            self._show(handle)
            return
        done = getattr(handle, action.replace("-", "_"))()
        if not done:
            raise CommandError(f"Iteration {handle.id} is {handle.progress().state}: there is nothing to {action}.")
        self.stdout.write(f"{handle.id}: {action}")

    def _show(self, handle: IterationHandle) -> None:
        """One iteration, with its shards and the rows that were set aside."""
        progress = handle.progress()
        self.stdout.write(f"{handle.id}  {progress.state}  {progress.reason}".rstrip())
        for shard in progress.shards:
            state = "done" if shard.done else f"at {shard.position!r}, generation {shard.generation}"
            failing = f", {shard.failing!r} has raised {shard.attempts} times" if shard.failing else ""
            self.stdout.write(f"  shard {shard.index:>4}  {shard.rows:>10,} rows  {state}{failing}")
        for name, number in sorted(progress.counters.items()):
            self.stdout.write(f"  {name}: {number:,}")
        for row in progress.quarantined:
            last = row.error.strip().rpartition("\n")[2]
            self.stdout.write(f"  quarantined {row.key!r} after {row.attempts} calls: {last}")

    def _watch(self, interval: float) -> None:
        before: dict[str, tuple[float, int]] = {}
        try:
            while self._list(before):
                time.sleep(interval)
                if self.stdout.isatty():
                    self.stdout.write("\x1b[H\x1b[2J", ending="")
        except KeyboardInterrupt:
            return

    def _list(self, before: dict[str, tuple[float, int]]) -> int:
        """One line an iteration; returns how many are under way. `before` has when each was first seen, and how far."""
        under_way = 0
        for store, iteration in _all():
            try:
                progress = IterationHandle(id=iteration.id, alias=store.alias).progress()
            except UnknownIterationError:  # over since
                continue
            first = before.setdefault(iteration.id, (clock.now(), progress.rows))
            self.stdout.write(line(iteration, progress, first))
            under_way += not progress.state.is_over
        if not before:
            self.stdout.write("There are no iterations.")
        return under_way


def line(iteration: Iteration, progress: Progress, first: tuple[float, int]) -> str:
    """Id, label, state, bar, rows, rate and time left of one iteration, and its reason."""
    rows, total = progress.rows, progress.total
    parts = [iteration.id[:8], f"{iteration.label:30}", f"{progress.state:10}", bar(rows, total)]
    parts.append(f"{rows:,} of {total:,}" if total is not None else f"{rows:,}")
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
        parts.append(f"{datetime.fromtimestamp(iteration.finished, timezone.utc):%Y-%m-%d %H:%M:%S} UTC")
    if progress.reason:
        parts.append(progress.reason.strip().rpartition("\n")[2][:100])
    return "  ".join(parts)


def bar(rows: int, total: int | None) -> str:
    """How much is done, as a bar; dots where nobody knows."""
    if total is None:
        return "[" + "." * WIDTH + "]"
    full = WIDTH if not total else min(WIDTH * rows // total, WIDTH)
    return "[" + "#" * full + " " * (WIDTH - full) + "]"


def _all() -> list[tuple[IterationStore, Iteration]]:
    """Every iteration there is, oldest first."""
    found: list[tuple[IterationStore, Iteration]] = []
    for store in all_stores():
        after = ""
        while page := store.list(after=after):
            found += [(store, iteration) for iteration in page]
            after = page[-1].id
    return sorted(found, key=lambda each: each[1].created)


def _found(beginning: str | None) -> IterationHandle:
    if not beginning:
        raise CommandError("Say which iteration: its id, or the beginning of it.")
    found = [(store, each) for store, each in _all() if each.id.startswith(beginning)]
    if len(found) != 1:
        raise CommandError(f"{len(found) or 'No'} iterations have an id that begins with {beginning!r}.")
    ((store, iteration),) = found
    return IterationHandle(id=iteration.id, alias=store.alias)
