"""The command `health`: its arguments, and what it does."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from ..upkeep.health import health


def add_health_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `health` to a parser."""
    parser.add_argument("--late", type=float, help="seconds for which a record may wait to be sent (health_late)")
    parser.add_argument("--dead", type=int, help="dead letters of the last 24 hours that there may be (health_dead)")
    parser.add_argument("--json", action="store_true", help="print an object of JSON")


def run_health(arguments: Namespace, say: Callable[[str], object] = print) -> int:
    """Say whether the service is healthy, and why not. Returns the exit status: 1 if it is not."""
    found = health(late=arguments.late, dead=arguments.dead)
    say(found.to_json() if arguments.json else "\n".join(found.reasons) or "healthy")
    return 0 if found.healthy else 1
