"""The command `sweep`: its argument, and what it does."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from ..config import current
from ..upkeep.sweep import sweep
from .snapshot import StoreRow, counted


def add_sweep_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `sweep` to a parser."""
    parser.add_argument("--budget", type=float, help="seconds after which to stop")


def run_sweep(arguments: Namespace, say: Callable[[str], object] = print) -> int:
    """Sweep, and say what was done and what is left. Returns the exit status."""
    report = sweep(budget=arguments.budget)
    say(f"defer sweep: {report}")
    stores = [counted(store) for store in current().every_store()]
    for row in stores:
        say(f"  {row['store']} {row['alias']}".rstrip() + f": {row['error'] or _left(row)}")
    return 1 if report.counts["failed"] or any(row["error"] for row in stores) else 0


def _left(row: StoreRow) -> str:
    age = f" (the oldest for {row['oldest']:.0f} s)" if row["late"] else ""
    return f"late {row['late']}{age}, failing {row['failing']}, dead {row['dead']}"
