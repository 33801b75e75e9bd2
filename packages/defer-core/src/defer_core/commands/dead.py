"""The command `dead`: its arguments, and what it does with dead letters."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone

from ..config import current
from ..errors import DeferError
from ..record import State, TaskRecord
from ..stores.base import TaskStore
from ..text import last_line, one_line, printable
from ..upkeep import dead_letters
from ..wire.describe import describe

SHOWN = (State.DEAD, State.FAILING)
"""The states of records that `show` shows."""


def add_dead_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `dead` to a parser."""
    parser.add_argument("action", nargs="?", default="list", choices=["list", "show", "rerun", "drop"])
    said = "ids, beginnings of ids, or names of tasks in their queues; `all` for every dead letter"
    parser.add_argument("ids", nargs="*", metavar="id", help=said)


def run_dead(arguments: Namespace, say: Callable[[str], object] = print) -> int:
    """List, show, re-run or drop dead letters of every configured store; show failing tasks, too. Returns the exit
    status.

    Raises KeyError for an id that is not given, not there or ambiguous, and DeferError for those that cannot be re-run
    and for stores that cannot be asked, once the others have been.
    """
    action, stores = arguments.action, current().every_store()
    failures: list[str] = []
    if action == "list":
        for store in stores:
            with _noted(failures):
                for record in _records(store, State.DEAD):
                    say(_line(record))
    elif not arguments.ids:
        raise KeyError(f"dead {action} needs the ids of dead letters, or `all`.")
    else:
        for record_id, store in _chosen(arguments.ids, stores, action, failures):
            with _noted(failures, f"{record_id}: "), _asked(store):
                _act(action, record_id, store, say)
    if failures:
        raise DeferError("\n".join(failures))
    return 0


@contextmanager
def _noted(failures: list[str], what: str = "") -> Iterator[None]:
    """Note what goes wrong: there are others to be done."""
    try:
        yield
    except (DeferError, KeyError) as error:
        failures.append(f"{what}{error.args[0]}")


@contextmanager
def _asked(store: TaskStore) -> Iterator[None]:
    """Raise DeferError for an error of a store's database: its library has errors of its own."""
    try:
        yield
    except (DeferError, KeyError, BrokenPipeError):
        raise
    except Exception as error:
        where = f"{store.name} {store.alias}".strip()
        raise DeferError(f"The store {where} cannot be asked: {one_line(repr(error))}") from error


def _records(store: TaskStore, state: State) -> Iterator[TaskRecord]:
    with _asked(store):
        yield from dead_letters.dead_letters(store, state)


def _chosen(
    given: Sequence[str], stores: Sequence[TaskStore], action: str, failures: list[str]
) -> list[tuple[str, TaskStore]]:
    if given != ["all"]:
        states = SHOWN if action == "show" else (State.DEAD,)
        return [_located(each, stores, states) for each in given]
    chosen: list[tuple[str, TaskStore]] = []
    for store in stores:
        with _noted(failures):
            chosen += [(record.id, store) for record in _records(store, State.DEAD)]
    return chosen


def _located(given: str, stores: Sequence[TaskStore], states: Sequence[State]) -> tuple[str, TaskStore]:
    """Return the id and the store of a record by its id; else by the beginning of its id or the task's name in its
    queue, among those in some states. Raises KeyError."""
    for store in stores:
        with _asked(store):
            if store.get(given) is not None:
                return given, store
    found = [
        (record.id, store)
        for store in stores
        for state in states
        for record in _records(store, state)
        if record.id.startswith(given) or record.routing.name == given
    ]
    if len(found) > 1:
        raise KeyError(f"{given!r} may be each of {', '.join(record_id for record_id, _ in found)}: give one of these.")
    if not found:
        raise KeyError(f"There is no dead letter {given}.")
    return found[0]


def _act(action: str, record_id: str, store: TaskStore, say: Callable[[str], object]) -> None:
    if action == "show":
        record = dead_letters.find(record_id, store, SHOWN)
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
        record.reason or record.state,
        record.routing.queue,
        what,
        last_line(record.last_error),
    )
    return "  ".join(map(one_line, columns))


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
