"""The durable queue: one SQLite file that any number of senders and dispatchers share."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from defer_core import clock
from defer_core.sqlite_file import Connection, SQLiteFile
from defer_core.task import RetryOptions, Routing

from . import limits
from .queued import QueuedTask, Settled
from .retry import DEFAULTS, merged

DEFAULT_FILE = ".defer/queue.sqlite3"
"""Where the queue is where neither `file` nor the environment variable DEFER_LOCAL_FILE says so."""
NAME_RETENTION = 86400.0
"""Seconds for which the name of a task that is gone is refused."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS queues (
    name TEXT PRIMARY KEY, state TEXT NOT NULL, proto BLOB NOT NULL, deleted REAL, retry TEXT,
    max_running INTEGER, rate REAL, burst REAL, tokens REAL, refilled REAL);
CREATE TABLE IF NOT EXISTS tasks (
    id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, name TEXT NOT NULL, routing TEXT NOT NULL,
    method TEXT NOT NULL, body BLOB NOT NULL, proto BLOB, eta REAL NOT NULL, created REAL NOT NULL, due REAL NOT NULL,
    attempts INTEGER NOT NULL, responses INTEGER NOT NULL, executions INTEGER NOT NULL, previous_response INTEGER,
    retry_reason TEXT NOT NULL, first_attempt REAL, last_attempt REAL, answered REAL, forced INTEGER NOT NULL,
    owner TEXT, UNIQUE (queue, name));
CREATE INDEX IF NOT EXISTS tasks_waiting ON tasks (due) WHERE owner IS NULL;
CREATE INDEX IF NOT EXISTS tasks_owned ON tasks (owner) WHERE owner IS NOT NULL;
CREATE TABLE IF NOT EXISTS names (
    queue TEXT NOT NULL, name TEXT NOT NULL, until REAL NOT NULL, PRIMARY KEY (queue, name)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS names_until ON names (until);
CREATE TABLE IF NOT EXISTS dispatchers (
    id TEXT PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, alive_until REAL NOT NULL);
"""
_COLUMNS = tuple(each.name for each in fields(QueuedTask))
_ADD = f"""INSERT INTO tasks ({", ".join(_COLUMNS)}) SELECT {", ".join("?" * len(_COLUMNS))}
WHERE NOT EXISTS (SELECT 1 FROM names WHERE queue = ? AND name = ? AND until > ?)
ON CONFLICT (queue, name) DO NOTHING"""
_UPDATE = f"UPDATE tasks SET {', '.join(f'{name} = ?' for name in _COLUMNS)} WHERE queue = ? AND name = ?"
_OURS = " AND queue = ? AND name = ? AND owner = ? AND attempts = ?"
_WAITING = """FROM tasks LEFT JOIN queues ON queues.name = tasks.queue WHERE owner IS NULL AND due <= ?
AND (forced OR coalesce(queues.state, 'RUNNING') = 'RUNNING')"""


def locate(file: str | Path | None) -> Path:
    """The queue's file: `file`, else what DEFER_LOCAL_FILE says, else the default under the current directory."""
    return Path(file or os.environ.get("DEFER_LOCAL_FILE") or DEFAULT_FILE).absolute()


class DurableQueue:
    """The tasks in one file, made on first use. Every method is one transaction."""

    def __init__(self, file: str | Path | None = None) -> None:
        self.file = SQLiteFile(locate(file), SCHEMA)

    def secret(self) -> str:
        """What the dispatcher and the handler share; made once for the file."""
        with self.file.writing() as connection:
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('secret', ?)", (secrets.token_urlsafe(32),))
            return str(connection.execute("SELECT value FROM meta WHERE key = 'secret'").fetchone()[0])

    def add(self, tasks: Sequence[QueuedTask]) -> list[bool]:
        """Take tasks; which of them were, by index: the others' names are taken, by a task or a recent one."""
        now = clock.now()
        with self.file.writing() as connection:
            return [
                connection.execute(_ADD, (*_to_row(task), task.queue, task.name, now)).rowcount > 0 for task in tasks
            ]

    def has_due(self, now: float) -> bool:
        """Whether a task waits to be leased; a read, and cheap."""
        return self.file.connection().execute(f"SELECT 1 {_WAITING} LIMIT 1", (now,)).fetchone() is not None

    def turn(self, owner: str, settled: Sequence[Settled], *, limit: int, now: float) -> list[QueuedTask]:
        """A dispatcher's turn, in one transaction: put down what it has finished, and lease up to `limit` tasks, oldest
        first. An attempt is counted when it begins, so that what a crash interrupts is known as a repetition."""
        with self.file.writing() as connection:
            for each in settled:
                _settle(connection, each, now)
            return _lease(connection, owner, limit, now)

    def take_back(self, owners: Sequence[str], how: Callable[[QueuedTask], QueuedTask]) -> int:
        """Give the tasks of dispatchers that are gone back to the queue, changed by `how`. Returns their number."""
        count = 0
        with self.file.writing() as connection:
            for owner in owners:
                rows = connection.execute("SELECT * FROM tasks WHERE owner = ?", (owner,)).fetchall()
                for row in rows:
                    update(connection, how(_from_row(row)))
                connection.execute("DELETE FROM dispatchers WHERE id = ?", (owner,))
                count += len(rows)
        return count

    def beat(self, owner: str, host: str, pid: int, alive_until: float) -> None:
        """A dispatcher says that it lives; names whose time is over are forgotten on the occasion."""
        with self.file.writing() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO dispatchers VALUES (?, ?, ?, ?)", (owner, host, pid, alive_until)
            )
            connection.execute("DELETE FROM names WHERE until <= ?", (clock.now(),))

    def dispatchers(self) -> list[sqlite3.Row]:
        """Who has said to live: rows of id, host, pid and alive_until."""
        return self.file.connection().execute("SELECT * FROM dispatchers").fetchall()

    def is_idle(self, now: float) -> bool:
        """Whether nothing is in hand, due or to be repeated; tasks whose own time has not come may be there."""
        query = "SELECT 1 FROM tasks WHERE owner IS NOT NULL OR due <= ? OR due > eta LIMIT 1"
        return self.file.connection().execute(query, (now,)).fetchone() is None

    def retry_of(self, queue: str) -> RetryOptions:
        """How a queue repeats tasks that do not say so themselves."""
        row = self.file.connection().execute("SELECT retry FROM queues WHERE name = ?", (queue,)).fetchone()
        own = None if row is None or row["retry"] is None else RetryOptions(**json.loads(row["retry"]))
        return merged(own, DEFAULTS)

    def tasks(self, queue: str | None = None) -> list[QueuedTask]:
        """The tasks of a queue (of all), in the order in which they are due."""
        query = "SELECT * FROM tasks WHERE ? IS NULL OR queue = ? ORDER BY due, id"
        return [_from_row(row) for row in self.file.connection().execute(query, (queue, queue))]

    def numbered(self, queue: str, *, after: int, limit: int) -> list[tuple[int, QueuedTask]]:
        """A part of the tasks of a queue in the order in which they were taken, with their numbers, beyond `after`."""
        query = "SELECT * FROM tasks WHERE queue = ? AND id > ? ORDER BY id LIMIT ?"
        return [(row["id"], _from_row(row)) for row in self.file.connection().execute(query, (queue, after, limit))]

    def was_there(self, queue: str, name: str) -> bool:
        """Whether a task of that name is gone, and not for long."""
        query = "SELECT 1 FROM names WHERE queue = ? AND name = ? AND until > ?"
        return self.file.connection().execute(query, (queue, name, clock.now())).fetchone() is not None

    def close(self) -> None:
        """Close this thread's connection."""
        self.file.close()


def _lease(connection: Connection, owner: str, limit: int, now: float) -> list[QueuedTask]:
    leased: list[QueuedTask] = []
    full: list[str] = []
    while len(leased) < limit:
        others = f"AND (forced OR tasks.queue NOT IN ({', '.join('?' * len(full))}))" if full else ""
        query = f"SELECT tasks.* {_WAITING} {others} ORDER BY due, tasks.id LIMIT 1"
        row = connection.execute(query, (now, *full)).fetchone()
        if row is None:
            break
        if not row["forced"] and not limits.take(connection, row["queue"], now):
            full.append(row["queue"])
            continue
        task = _begun(_from_row(row), owner, now)
        update(connection, task)
        leased.append(task)
    return leased


def _begun(task: QueuedTask, owner: str, now: float) -> QueuedTask:
    first = now if task.first_attempt is None else task.first_attempt
    return replace(task, owner=owner, attempts=task.attempts + 1, first_attempt=first, last_attempt=now, answered=None)


def _settle(connection: Connection, settled: Settled, now: float) -> None:
    """Only while the task is still in this attempt's hands: another dispatcher may have taken it over."""
    task = settled.task
    key = (task.queue, task.name, task.owner, task.attempts)
    if connection.execute(f"SELECT 1 FROM tasks WHERE true{_OURS}", key).fetchone() is None:
        return
    if settled.after is None:
        remove(connection, task.queue, task.name, now)
    else:
        update(connection, settled.after)


def remove(connection: Connection, queue: str, name: str, now: float) -> bool:
    """Delete a task and keep its name taken. Returns whether it was there."""
    gone = connection.execute("DELETE FROM tasks WHERE queue = ? AND name = ?", (queue, name)).rowcount > 0
    if gone:
        connection.execute("INSERT OR REPLACE INTO names VALUES (?, ?, ?)", (queue, name, now + NAME_RETENTION))
    return gone


def remove_all(connection: Connection, queue: str, now: float) -> None:
    """Delete the tasks of a queue and keep their names taken."""
    query = "INSERT OR REPLACE INTO names SELECT queue, name, ? FROM tasks WHERE queue = ?"
    connection.execute(query, (now + NAME_RETENTION, queue))
    connection.execute("DELETE FROM tasks WHERE queue = ?", (queue,))


def find_task(connection: Connection, queue: str, name: str) -> QueuedTask | None:
    """A task, or None."""
    row = connection.execute("SELECT * FROM tasks WHERE queue = ? AND name = ?", (queue, name)).fetchone()
    return None if row is None else _from_row(row)


def update(connection: Connection, task: QueuedTask) -> None:
    """Write a task that is there."""
    connection.execute(_UPDATE, (*_to_row(task), task.queue, task.name))


def _to_row(task: QueuedTask) -> list[Any]:
    values = {name: getattr(task, name) for name in _COLUMNS}
    return list((values | {"routing": task.routing.to_json()}).values())


def _from_row(row: sqlite3.Row) -> QueuedTask:
    values = {name: row[name] for name in _COLUMNS}
    return QueuedTask(**values | {"routing": Routing.from_json(row["routing"]), "forced": bool(row["forced"])})
