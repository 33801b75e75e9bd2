"""What the demonstration shows while it runs, and the table at its end: by rich on a terminal, else as plain lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from .checks import Check

PLAIN_EVERY = 2.0
"""Seconds between two lines of progress where there is no terminal."""

LEVELS = "▁▂▃▄▅▆▇█"


class Display(Protocol):
    """Where progress goes."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def say(self, text: str) -> None:
        """One line that stays."""

    def scene(self, title: str) -> None:
        """The scene that begins."""

    def progress(self, done: int, total: int, shards: Sequence[float]) -> None:
        """How far the iteration has come: rows, and of each shard the part (0 to 1) that it has stored as done."""

    def table(self, checks: Sequence[Check], seconds: float) -> None:
        """The closing table."""


def display() -> Display:
    """Rich, where that is installed and a terminal is there to show it."""
    if sys.stdout.isatty():
        try:
            return RichDisplay()
        except ImportError:
            pass
    return PlainDisplay()


def summary(checks: Sequence[Check], seconds: float) -> str:
    """The last line."""
    failed = sum(not each.held for each in checks)
    result = f"{failed} of {len(checks)} checks FAILED" if failed else f"All {len(checks)} checks passed"
    return f"{result} in {seconds:.0f} s."


def levels(parts: Sequence[float]) -> str:
    """One character a part: from ▁ to █."""
    return "".join(LEVELS[min(int(part * len(LEVELS)), len(LEVELS) - 1)] for part in parts)


class PlainDisplay:
    """Lines of text."""

    def __init__(self) -> None:
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, text: str) -> None:
        print(f"    {text}", flush=True)

    def scene(self, title: str) -> None:
        print(f"--- {title}", flush=True)

    def progress(self, done: int, total: int, shards: Sequence[float]) -> None:
        if time.monotonic() >= self._next or done == total:
            self._next = time.monotonic() + PLAIN_EVERY
            self.say(f"{done:,} of {total:,} orders booked; shards: {' '.join(f'{part:.0%}' for part in shards)}")

    def table(self, checks: Sequence[Check], seconds: float) -> None:
        width = max(len(each.scene) for each in checks)
        print("\nWhat was checked")
        for each in checks:
            mark = "ok    " if each.held else "FAILED"
            print(f"  {mark}  {each.scene:{width}}  {each.claim}" + (f" ({each.detail})" if each.detail else ""))
        print(summary(checks, seconds), flush=True)


class RichDisplay:
    """A live view: the scenes so far, and a bar for the iteration."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._console = Console()
        self._bars = Progress(
            SpinnerColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[shards]}"),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._current: Any = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        self._console.print(f"    {text}", highlight=False, markup=False)

    def scene(self, title: str) -> None:
        if self._current is not None:
            self._bars.remove_task(self._current)
        self._console.rule(f"[bold]{title}", align="left")
        self._current = self._bars.add_task(title, total=None, shards="")

    def progress(self, done: int, total: int, shards: Sequence[float]) -> None:
        self._bars.update(self._current, completed=done, total=total, shards=f"shards {levels(shards)}")

    def table(self, checks: Sequence[Check], seconds: float) -> None:
        from rich.table import Table

        table = Table(title="What was checked", title_justify="left")
        for heading in ("", "scene", "checked", "seen"):
            table.add_column(heading)
        for each in checks:
            table.add_row("[green]✓" if each.held else "[bold red]✗", each.scene, each.claim, each.detail)
        self._console.print(table)
        self._console.print(f"[bold]{summary(checks, seconds)}")
