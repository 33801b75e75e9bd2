"""The command `status`: its arguments, and what it shows, once or again and again."""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from contextlib import suppress

from ..config import current
from .snapshot import Snapshot, take
from .table import Rows, tables

SECONDS = 5.0
"""Seconds between two looks of `--watch`."""
CLEAR = "\x1b[H\x1b[2J"


def add_status_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `status` to a parser."""
    add_watch_argument(parser)
    parser.add_argument("--json", action="store_true", help="print an object of JSON, one a line")
    parser.add_argument("--limit", type=int, default=10, help="failing tasks, iterations, … that are shown (10)")


def add_watch_argument(parser: ArgumentParser) -> None:
    """Add `--watch [SECONDS]` to a parser: the seconds between two looks, None for a single one."""
    parser.add_argument(
        "--watch", nargs="?", type=_seconds, const=SECONDS, metavar="SECONDS", help="look again every SECONDS (5)"
    )


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise ArgumentTypeError(f"{text} is no number of seconds above 0")
    return seconds


def run_status(arguments: Namespace, say: Callable[[str], object] = print) -> int:
    """Show the queues, the stores, and what fails, until Ctrl-C or the end of the pipe if it is to be watched. Returns
    the exit status. Raises ConfigError."""
    in_terminal = sys.stdout.isatty() and not arguments.json
    clear = CLEAR if in_terminal and arguments.watch else ""
    try:
        while True:
            found = take(current(), arguments.limit)
            say(clear + (json.dumps(found) if arguments.json else text_of(found, styled=in_terminal)))
            sys.stdout.flush()
            if arguments.watch is None:
                return 0
            time.sleep(arguments.watch)
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        _forget_output()
        return 0


def text_of(found: Snapshot, *, styled: bool) -> str:
    """Return a snapshot as tables, below a line with its time and whether the service is healthy."""
    health = "healthy" if found["healthy"] else "not healthy"
    head = "\n".join([f"{found['time']}  {found['transport'] or 'no transport'}  {health}", *found["reasons"]])
    shown: dict[str, Rows] = {"queues": found["queues"], "stores": found["stores"]}
    shown["failing tasks"] = [{**row, "id": row["id"][:8]} for row in found["failing"]]
    shown |= found["sections"]
    return f"{head}\n\n{tables(shown, styled=styled)}".rstrip()


def _forget_output() -> None:
    """Let what is left in the buffer go nowhere: Python writes it at its end, and would complain."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
