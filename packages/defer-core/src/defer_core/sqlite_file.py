"""A SQLite file that several threads and processes share: one connection a thread, WAL, readable by its owner alone."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ConfigError

BUSY_TIMEOUT = 30.0
"""Seconds that a writer waits for the one before it."""
_open_files: weakref.WeakSet[SQLiteFile] = weakref.WeakSet()
_left_behind: list[object] = []


class Connection(sqlite3.Connection):
    """A connection that is closed with its thread."""

    def __del__(self) -> None:
        self.close()


class SQLiteFile:
    """The file at `path`, made with its folder on first use, with the tables of `schema` (`CREATE … IF NOT EXISTS`)."""

    def __init__(self, path: str | Path, schema: str) -> None:
        self.path = Path(path).absolute()
        self._schema = schema
        self._local = threading.local()
        _open_files.add(self)

    def connection(self) -> Connection:
        """This thread's connection, in autocommit mode. Raises ConfigError where the file cannot be made."""
        found: Connection | None = getattr(self._local, "connection", None)
        if found is None:
            found = self._local.connection = self._connect()
        return found

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that holds the write lock from its start, so that what it reads stays true until it writes."""
        connection = self.connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.commit()
        except BaseException:
            connection.rollback()
            raise

    def close(self) -> None:
        """Close this thread's connection; those of other threads close with their threads."""
        connection = self._local.__dict__.pop("connection", None)
        if connection is not None:
            connection.close()

    def _connect(self) -> Connection:
        try:
            _create(self.path)
            connection = sqlite3.connect(
                self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False, factory=Connection
            )
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error
        connection.row_factory = sqlite3.Row
        try:
            _use_wal(connection)
        except sqlite3.OperationalError:  # it is locked: that passes
            raise
        except sqlite3.DatabaseError as error:
            raise self._unusable(error) from error
        # a commit is on the disk when it returns: a task that was taken outlives a power cut
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(self._schema)
        return connection

    def _unusable(self, error: Exception) -> ConfigError:
        return ConfigError(f"The file {self.path} cannot be opened: {error}. Give another `file`.")


def _create(path: Path) -> None:
    """Make folder and file before SQLite does, closed to others; the WAL beside it takes over the file's mode."""
    if not path.parent.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _use_wal(connection: sqlite3.Connection) -> None:
    """The switch to WAL does not wait for other openers by itself."""
    until = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


def _before_fork() -> None:
    """SQLite's locks do not pass a fork: let go of this thread's connections where nothing is under way."""
    for file in list(_open_files):
        connection = getattr(file._local, "connection", None)
        if connection is not None and not connection.in_transaction:
            file.close()


def _after_fork() -> None:
    """What is still open is the parent's: a child neither uses nor closes it."""
    for file in list(_open_files):
        _left_behind.append(file._local)
        file._local = threading.local()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
