"""The command `dead`: its arguments, and what it does with dead letters."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from datetime import datetime, timezone

from ..config import current
from ..errors import DeferError
from ..record import TaskRecord
from ..stores.base import TaskStore
from ..text import last_line, one_line, printable
from ..upkeep import dead_letters
from ..wire.describe import describe


def add_dead_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `dead` to a parser."""
    parser.add_argument("action", nargs="?", default="list", choices=["list", "show", "rerun", "drop"])
    parser.add_argument("ids", nargs="*", metavar="id", help="record ids; `all` for every dead letter")


def run_dead(arguments: Namespace, say: Callable[[str], object] = print) -> int:
    """List, show, re-run or drop dead letters of every configured store. Returns the exit status.

    Raises KeyError for an id that is not given or not there, and DeferError for those that cannot be re-run, once
    the others have been.
    """
    stores = current().every_store()
    every = ((record, store) for store in stores for record in dead_letters.dead_letters(store))
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
    record = dead_letters.find(record_id, store)
    if action == "show":
        span = f"{_time(record.first_attempt)} to {_time(record.last_attempt)}"
        tries = "tries to send it" if record.reason in ("exhausted", "held") else "attempts"
        say(f"{_line(record)}\n  {describe(record, current())}\n  {tries} {record.attempts}, {span}")
        say(f"  verified {record.verified}, {len(record.envelope)} bytes\n{printable(record.last_error)}")
    elif action == "rerun":
        say(f"{record_id}: {dead_letters.rerun(record_id, store).status}")
    else:
        dead_letters.drop(record_id, store)
        say(f"{record_id}: dropped")


def _line(record: TaskRecord) -> str:
    what = record.label or record.routing.name or "?"
    columns = (
        record.id,
        _time(record.last_attempt),
        record.reason,
        record.routing.queue,
        what,
        last_line(record.last_error),
    )
    return "  ".join(map(one_line, columns))


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
