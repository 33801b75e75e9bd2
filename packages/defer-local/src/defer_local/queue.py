"""The durable queue: one SQLite file that any number of senders and dispatchers share."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from sqlite3 import Connection, Row

from defer_core.spi import RetryOptions, SQLiteFile, clock, locate_file

from . import leasing, rows
from .queued import QueuedTask, Settled
from .retry import DEFAULTS, merged

DEFAULT_FILE = ".defer/queue.sqlite3"
"""The default file, in the folder of the project."""
_OURS = "SELECT 1 FROM tasks WHERE queue = ? AND name = ? AND owner = ? AND attempts = ?"


def locate(file: str | Path | None) -> Path:
    """Return the queue's file: `file`, else DEFER_LOCAL_FILE, else the default in the project's folder."""
    return locate_file(file, "DEFER_LOCAL_FILE", DEFAULT_FILE)


class DurableQueue:
    """The tasks in one file, made on first use. Every method is one transaction."""

    def __init__(self, file: str | Path | None = None) -> None:
        self.file = SQLiteFile(locate(file), rows.SCHEMA)

    def secret(self) -> str:
        """Return the secret that dispatcher and handler share; it is made once for the file."""
        query = "SELECT value FROM meta WHERE key = 'secret'"
        if found := self.file.query(query):
            return str(found[0][0])
        with self.file.writing() as connection:
            connection.execute("INSERT OR IGNORE INTO meta VALUES ('secret', ?)", (secrets.token_urlsafe(32),))
            return str(connection.execute(query).fetchone()[0])

    def add(self, tasks: Sequence[QueuedTask]) -> list[bool]:
        """Add tasks. Return by index which were added: the name of another is that of a waiting or recent task."""
        now = clock.now()
        with self.file.writing() as connection:
            return [rows.add(connection, task, now) for task in tasks]

    def has_due(self, now: float) -> bool:
        """Tell whether a task may be leased now: a read, and cheap."""
        with self.file.reading() as connection:
            return bool(leasing.choose(connection, 1, now))

    def turn(self, owner: str, settled: Sequence[Settled], *, limit: int, now: float) -> list[QueuedTask]:
        """Write what a dispatcher has finished, and lease up to `limit` tasks to it, oldest first, in one transaction.

        An attempt is counted when it begins, so that the one after a crash counts as a retry.
        """
        with self.file.writing() as connection:
            for each in settled:
                _settle(connection, each, now)
            return leasing.lease(connection, owner, limit, now)

    def take_back(self, owners: Sequence[str], how: Callable[[QueuedTask], QueuedTask]) -> int:
        """Give the tasks of dispatchers that are gone back to the queue, changed by `how`. Returns their number."""
        count = 0
        with self.file.writing() as connection:
            for owner in owners:
                found = connection.execute("SELECT * FROM tasks WHERE owner = ?", (owner,)).fetchall()
                for row in found:
                    rows.update(connection, how(rows.from_row(row)))
                connection.execute("DELETE FROM dispatchers WHERE id = ?", (owner,))
                count += len(found)
        return count

    def beat(self, owner: str, host: str, pid: int, alive_until: float) -> None:
        """Write the heartbeat of a dispatcher, and forget names that have expired."""
        with self.file.writing() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO dispatchers VALUES (?, ?, ?, ?)", (owner, host, pid, alive_until)
            )
            connection.execute("DELETE FROM names WHERE until <= ?", (clock.now(),))

    def clock_set_back(self, now: float) -> None:
        """Correct waits, other than for an ETA, after the clock was set back."""
        with self.file.writing() as connection:
            leasing.clock_set_back(connection, now)

    def dispatchers(self) -> list[Row]:
        """Return the heartbeats: rows of id, host, pid and alive_until."""
        return self.file.query("SELECT * FROM dispatchers")

    def unknown_owners(self) -> list[str]:
        """Return the owners of tasks that have no heartbeat."""
        query = "SELECT DISTINCT owner FROM tasks WHERE owner IS NOT NULL AND owner NOT IN (SELECT id FROM dispatchers)"
        return [row["owner"] for row in self.file.query(query)]

    def is_idle(self, now: float) -> bool:
        """Tell whether no task is running, due or waiting for a retry; tasks with a future ETA do not count."""
        query = "SELECT 1 FROM tasks WHERE owner IS NOT NULL OR due <= ? OR due > eta OR eta <= created LIMIT 1"
        return not self.file.query(query, now)

    def retry_of(self, queue: str) -> RetryOptions:
        """Return the retry options of a queue, for tasks without their own."""
        found = self.file.query("SELECT retry FROM queues WHERE name = ? AND retry IS NOT NULL", queue)
        return merged(RetryOptions(**json.loads(found[0]["retry"])) if found else None, DEFAULTS)

    def tasks(self, queue: str | None = None) -> list[QueuedTask]:
        """Return the tasks of a queue, or of all, by when they are due."""
        query = "SELECT * FROM tasks WHERE ? IS NULL OR queue = ? ORDER BY due, id"
        return [rows.from_row(row) for row in self.file.query(query, queue, queue)]

    def numbered(self, queue: str, *, after: int, limit: int) -> list[tuple[int, QueuedTask]]:
        """Return tasks of a queue with their numbers, in the order of these, beyond `after`."""
        query = "SELECT * FROM tasks WHERE queue = ? AND id > ? ORDER BY id LIMIT ?"
        return [(row["id"], rows.from_row(row)) for row in self.file.query(query, queue, after, limit)]

    def was_there(self, queue: str, name: str) -> bool:
        """Tell whether a task of that name was there recently."""
        query = "SELECT 1 FROM names WHERE queue = ? AND name = ? AND until > ?"
        return bool(self.file.query(query, queue, name, clock.now()))

    def close(self) -> None:
        """Close this thread's connection."""
        self.file.close()


def _settle(connection: Connection, settled: Settled, now: float) -> None:
    """Write the result unless another dispatcher has taken the task over."""
    task = settled.task
    if connection.execute(_OURS, (task.queue, task.name, task.owner, task.attempts)).fetchone() is None:
        return
    if settled.after is None:
        rows.remove(connection, task.queue, task.name, now)
    else:
        rows.update(connection, settled.after)
