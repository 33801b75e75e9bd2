"""`defer-local list`, `stats` and `purge`: read a queue's file without starting, leasing or making anything."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from defer_core.errors import ConfigError
from defer_core.spi import QueueState, callable_in, clock, one_line

from . import rows
from .living import Watch
from .queue import DurableQueue

_TASKS = """SELECT queue, name, body, due, attempts, previous_response, answered, owner FROM tasks
WHERE queue IN (SELECT value FROM json_each(?)) ORDER BY due, id LIMIT ?"""
_COUNTS = """SELECT count(*) AS tasks, total(owner IS NOT NULL) AS running,
total(owner IS NULL AND due <= ?) AS due, total(attempts > 0 AND owner IS NULL) AS repeated, min(due) AS next,
min(CASE WHEN owner IS NULL THEN due END) AS waiting
FROM tasks WHERE queue = ?"""
_QUEUES = """SELECT name, state FROM queues WHERE deleted IS NULL
UNION SELECT DISTINCT queue, 'RUNNING' FROM tasks WHERE queue NOT IN (SELECT name FROM queues) ORDER BY name"""

Row = dict[str, Any]
"""The shown values of a task or a queue, by column."""


def inspect(action: str, file: Path, names: Sequence[str], *, as_json: bool, limit: int) -> None:
    """Print the tasks (`list`; the first `limit`, or all if it is 0) or the counts (`stats`) of the named queues, by
    default of all. Raises ConfigError if there is no such file or queue."""
    with _opened(file) as connection:
        queues = _chosen(connection, file, names)
        total = sum(_counts(connection, each)["tasks"] for each in queues)
        if action == "stats":
            found = [{"queue": each, "state": state, **_counts(connection, each)} for each, state in queues.items()]
        else:
            found = [_told(row) for row in connection.execute(_TASKS, (json.dumps(list(queues)), limit or -1))]
    if as_json:
        print(json.dumps(found, indent=1))
    elif not found:
        print(f"There are no tasks in {file}.")
    else:
        _print_table(found)
        if action == "list" and total > len(found):
            print(f"… and {total - len(found):,} more (--limit 0 shows all).")


def states(file: Path) -> list[QueueState]:
    """Return what is known of each queue of a file; nothing if there is no file yet. Raises ConfigError for one that
    cannot be read."""
    if not file.exists():
        return []
    with _opened(file) as connection:
        beats = connection.execute("SELECT * FROM dispatchers").fetchall()
        is_delivered = len(Watch().gone(beats)) < len(beats)
        known = _chosen(connection, file, ())
        return [_state(connection, queue, state.lower(), is_delivered) for queue, state in known.items()]


def _state(connection: sqlite3.Connection, queue: str, state: str, is_delivered: bool) -> QueueState:
    now = clock.now()
    row = connection.execute(_COUNTS, (now, queue)).fetchone()
    tasks, due, running = (int(row[each]) for each in ("tasks", "due", "running"))
    if due and state == "running" and not is_delivered:
        state = "undelivered"
    waits = max(0.0, now - row["waiting"]) if due else None
    return QueueState(name=queue, state=state, tasks=tasks, due=due, running=running, waits=waits)


def purge(file: Path, names: Sequence[str], *, agreed: bool, ask: Callable[[str], str] = input) -> None:
    """Delete the tasks of the named queues once the person at the terminal has agreed. Their names stay taken for a
    day. Raises ConfigError without that agreement, or if there is no such file or queue."""
    if not names:
        raise ConfigError("Name the queue: defer-local purge QUEUE")
    with _opened(file) as connection:
        counts = {queue: _counts(connection, queue)["tasks"] for queue in _chosen(connection, file, names)}
    what = " and ".join(f"{count:,} tasks of {one_line(queue)}" for queue, count in counts.items())
    if not agreed and not _agrees(f"Delete {what} in {file}? [y/N] ", ask):
        raise ConfigError("Nothing was deleted. (--yes deletes without a question.)")
    queue = DurableQueue(file)
    with queue.file.writing() as connection:
        for each in counts:
            rows.remove_all(connection, each, clock.now())
    queue.close()
    print(f"Deleted {what}. What is under way runs to its end.")


def _agrees(question: str, ask: Callable[[str], str]) -> bool:
    try:
        return ask(question).strip().lower() in ("y", "yes")
    except EOFError:
        print(file=sys.stderr)
        return False


@contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    """Open an existing file for reading. Raises ConfigError."""
    try:
        if not file.is_file():
            raise ConfigError(f"There is no queue at {file}: nothing has been deferred there. Give another --file.")
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True, timeout=30.0)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA query_only = 1")
            yield connection
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(f"The file {file} cannot be read as a queue: {error}. Give another --file.") from error


def _chosen(connection: sqlite3.Connection, file: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the states of the named queues (by full or short names), by default of all. Raises ConfigError."""
    known = {row["name"]: row["state"] for row in connection.execute(_QUEUES)}
    chosen: dict[str, str] = {}
    for name in names:
        found = {queue: known[queue] for queue in known if name in (queue, queue.rpartition("/")[2])}
        if not found:
            has = ", ".join(map(one_line, known)) or "none"
            raise ConfigError(f"There is no queue {name!r} in {file}, which has: {has}.")
        chosen |= found
    return chosen if names else known


def _counts(connection: sqlite3.Connection, queue: str) -> Row:
    row = connection.execute(_COUNTS, (clock.now(), queue)).fetchone()
    counts = {key: int(row[key]) for key in ("tasks", "due", "repeated", "running")}
    return {**counts, "next": None if row["next"] is None else _time(row["next"])}


def _told(row: sqlite3.Row) -> Row:
    running = row["owner"] is not None
    last = row["previous_response"]
    if last is not None and row["answered"] is None and not running:
        last = "no answer"
    return {
        "queue": row["queue"],
        "task": row["name"],
        "calls": callable_in(row["body"]) or None,
        "due": _time(row["due"]),
        "attempts": row["attempts"],
        "running": running,
        "last": last,
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def _print_table(found: Sequence[Row]) -> None:
    columns = list(found[0])
    table = [columns, *([_cell(row[each]) for each in columns] for row in found)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: object) -> str:
    if value is None or isinstance(value, bool):
        return "yes" if value else "-"
    return one_line(value)
