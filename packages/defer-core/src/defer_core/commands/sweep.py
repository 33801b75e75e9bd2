"""The command `sweep`: its argument, and what it does."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from .. import clock
from ..config import current
from ..record import State
from ..upkeep.sweep import sweep


def add_sweep_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `sweep` to a parser."""
    parser.add_argument("--budget", type=float, help="seconds after which to stop")


def run_sweep(arguments: Namespace, say: Callable[[str], object] = print) -> int:
    """Sweep, and say what was done and what is left. Returns the exit status."""
    report = sweep(budget=arguments.budget)
    say(f"defer sweep: {report}")
    for store in current().every_store():
        where = f"{store.name} {store.alias}".strip()
        late, oldest = store.count(State.PENDING, due=clock.now()), store.oldest_pending()
        age = f" (the oldest for {clock.now() - oldest:.0f} s)" if late and oldest is not None else ""
        say(f"  {where}: late {late}{age}, failing {store.count(State.FAILING)}, dead {store.count(State.DEAD)}")
    return 1 if report.counts["failed"] else 0
