"""`python -m defer_core sweep`, `… dead …` and `… queues …`, configured by `DEFER_*` variables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

from . import clock, dead
from .config import current
from .errors import ConfigError, DeferError
from .queues import add_queue_arguments, run_queues
from .record import State, TaskRecord
from .stores.base import TaskStore
from .sweep import sweep


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0 done, 1 failed (the reason is on stderr)."""
    parser = argparse.ArgumentParser(prog="python -m defer_core", description=__doc__)
    add_commands(parser)
    return run(parser.parse_args(argv))


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add `sweep`, `dead` and `queues` to a parser."""
    commands = parser.add_subparsers(dest="command", required=True)
    sweeping = commands.add_parser("sweep", help="send what a crash left behind, and wake what has stalled")
    sweeping.add_argument("--budget", type=float, help="seconds after which to stop")
    burying = commands.add_parser("dead", help="the dead letters")
    add_dead_arguments(burying)
    queueing = commands.add_parser("queues", help="the declared queues of Cloud Tasks")
    add_queue_arguments(queueing)


def add_dead_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `dead` takes to a parser."""
    parser.add_argument("action", nargs="?", default="list", choices=["list", "show", "rerun", "drop"])
    parser.add_argument("ids", nargs="*", metavar="id", help="record ids; `all` for every dead letter")


def run(arguments: argparse.Namespace) -> int:
    """Run a parsed command on every configured store. Returns the exit status."""
    try:
        if arguments.command == "queues":
            return run_queues(arguments.action, arguments.names)
        stores = current().every_store()
        if not stores:
            raise ConfigError("No store is configured: set DEFER_TRANSPORT or DEFER_STORE.")
        return run_sweep(arguments.budget) if arguments.command == "sweep" else run_dead(arguments, stores)
    except (DeferError, KeyError) as error:
        print(error.args[0], file=sys.stderr)
        return 1


def run_sweep(budget: float | None, say: Callable[[str], object] = print) -> int:
    """Sweep, and say what was done and what is left."""
    report = sweep(budget=budget)
    say(f"defer sweep: {report}")
    for store in current().every_store():
        oldest = store.oldest_pending()
        age = "none" if oldest is None else f"{clock.now() - oldest:.0f} s"
        where = f"{store.name} {store.alias}".strip()
        say(f"  {where}: oldest pending {age}, pending {store.count(State.PENDING)}, dead {store.count(State.DEAD)}")
    return 1 if report.counts["failed"] else 0


def run_dead(arguments: argparse.Namespace, stores: Sequence[TaskStore], say: Callable[[str], object] = print) -> int:
    """List, show, re-run or drop dead letters. Raises KeyError for an id that is not given or not there, and
    DeferError for those that cannot be re-run, once the others have been."""
    every = ((record, store) for store in stores for record in dead.dead_letters(store))
    if arguments.action == "list":
        for record, _ in every:
            say(_line(record))
        return 0
    if not arguments.ids:
        raise KeyError(f"dead {arguments.action} needs the ids of dead letters, or `all`.")
    chosen = (
        [(record.id, store) for record, store in every]
        if arguments.ids == ["all"]
        else [_located(each, stores) for each in arguments.ids]
    )
    failures = []
    for record_id, store in chosen:
        try:
            _act(arguments.action, record_id, store, say)
        except (DeferError, KeyError) as error:
            failures.append(f"{record_id}: {error.args[0]}")
    if failures:
        raise DeferError("\n".join(failures))
    return 0


def _located(record_id: str, stores: Sequence[TaskStore]) -> tuple[str, TaskStore]:
    for store in stores:
        if store.get(record_id) is not None:
            return record_id, store
    raise KeyError(f"There is no dead letter {record_id}.")


def _act(action: str, record_id: str, store: TaskStore, say: Callable[[str], object]) -> None:
    record = dead.find(record_id, store)
    if action == "show":
        span = f"{_time(record.first_attempt)} to {_time(record.last_attempt)}"
        say(f"{_line(record)}\n  attempts {record.attempts}, {span}")
        say(f"  verified {record.verified}, {len(record.envelope)} bytes\n{record.last_error}")
    elif action == "rerun":
        say(f"{record_id}: {dead.rerun(record_id, store).status}")
    else:
        dead.drop(record_id, store)
        say(f"{record_id}: dropped")


def _line(record: TaskRecord) -> str:
    error = record.last_error.strip().rpartition("\n")[2]
    what = record.label or record.routing.name or "?"
    columns = (record.id, _time(record.last_attempt), record.reason, record.routing.queue, what, error)
    return "  ".join(columns)


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


if __name__ == "__main__":
    sys.exit(main())
