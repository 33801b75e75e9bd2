"""Creating and opening a SQLite file: private to its owner, in WAL mode, durable; and checking that it is still the
same file."""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("defer")

BUSY_TIMEOUT = 30.0
"""Seconds that a writer waits for the one before it."""
PARTS = ("", "-wal", "-shm")
"""Suffixes of a database's files. The last two exist as long as a connection does."""
PASSING = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
"""The errors of SQLite that other openers cause, and that pass."""
FOLDER = ".defer"
"""The folder that gets a `.gitignore` when it is created here."""

Identity = tuple[tuple[int, int] | None, ...]
"""Device and inode of each of `PARTS`."""

descriptors = threading.RLock()
"""Locked while this process closes a descriptor: that releases the locks of all others on the file."""


class UnusableError(Exception):
    """A file that cannot be used, and why."""


def identity(path: str) -> Identity:
    """Return which files are at `path` now."""
    return tuple(_inode(path + part) for part in PARTS)


def _inode(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def connect(path: str, schema: str) -> tuple[sqlite3.Connection, Identity]:
    """Return a connection to the file at `path`, which is created if it does not exist, and the identity of the opened
    file. Raises UnusableError, and sqlite3.OperationalError if others keep the file locked for too long."""
    while True:
        try:
            _make(path)
            _close_to_others(path)
            before = _inode(path)
            connection = _connection_to(path, schema)
        except OSError as error:
            raise UnusableError(str(error)) from error
        except sqlite3.Error as error:
            if _passes(error):
                raise
            raise UnusableError(str(error)) from error
        now = identity(path)
        if now[0] == before:
            return connection, now
        with descriptors:  # the file was replaced just now
            connection.close()


def discard(path: str, was: Identity, now: Identity) -> None:
    """Remove the log of a file that is gone, lest SQLite take it for the log of its successor."""
    if was[0] == now[0]:
        return
    for part, old, new in zip(PARTS[1:], was[1:], now[1:], strict=True):
        if old is not None and old == new:
            with suppress(OSError):
                os.unlink(path + part)


def _make(path: str) -> None:
    """Create folder and file before SQLite does, private to their owner; the WAL beside it takes over the file's
    mode."""
    folder = os.path.dirname(path)
    if not os.path.exists(folder):
        Path(folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.path.basename(folder) == FOLDER:
            _keep_out_of_git(folder)
    left = identity(path)
    with descriptors:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return
    discard(path, left, (_inode(path), *identity(path)[1:]))


def _keep_out_of_git(folder: str) -> None:
    with suppress(FileExistsError), open(os.path.join(folder, ".gitignore"), "x", opener=_private) as file:
        file.write("*\n")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _close_to_others(path: str) -> None:
    """Make an existing file private. Raises OSError if it cannot be used, or belongs to another user."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("it is not a file")
    if not os.access(path, os.R_OK | os.W_OK):
        raise OSError("this user may not read and write it")
    for part in PARTS if os.name == "posix" else ():
        with suppress(FileNotFoundError):
            mode = stat.S_IMODE(os.stat(path + part).st_mode)
            if mode & 0o077:
                os.chmod(path + part, mode & 0o700)
                log.warning("The file %s could be read by others (mode %o): it is private now.", path + part, mode)


def _connection_to(path: str, schema: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
    try:
        connection.row_factory = sqlite3.Row
        _use_wal(connection)
        # a commit is on the disk when it returns: a task that was taken outlives a power cut
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(schema)
    except BaseException:
        with descriptors:
            connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL, and wait for other openers: SQLite itself does not wait here."""
    until = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not _passes(error) or time.monotonic() > until:
                raise
            time.sleep(0.01)


def _passes(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in PASSING
