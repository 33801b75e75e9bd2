"""A SQLite file that several threads and processes share: one connection for each thread, WAL, private to its owner.

SQLite's locks belong to a process and a file. Closing any descriptor of the file releases all of them, so only SQLite
opens it here. A child of a fork has none of the locks that an inherited connection believes to have, so connections are
closed before a fork, and a child never uses one that was not.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from ..errors import ConfigError
from . import sqlite_opening as opening

log = logging.getLogger("defer")

FORK_PATIENCE = 10.0
"""Seconds that a fork waits for the transactions of other threads."""


class _Link:
    """One thread's connection, and the files that it has open."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.RLock()
        """Locked while the connection is in use, or made."""
        self.uses = 0
        self.connection: Connection | None = None
        self.files: opening.Identity = ()

    def close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            with opening.descriptors:
                connection.close()

    def __del__(self, getpid: Any = os.getpid) -> None:
        if self.pid == getpid():  # else the connection is that of a parent
            self.close()


class SQLiteFile:
    """The file at `path`, created with its folder on first use, with the tables of `schema` (`CREATE … IF NOT
    EXISTS`)."""

    def __init__(self, path: str | Path, schema: str) -> None:
        self.path = Path(path).absolute()
        self._real = str(self.path)
        self._schema = schema
        self._forget_links()
        self._inherited = False
        self._last: object = None
        self.losses = 0
        """How often the file was found deleted or replaced."""
        with _registry:
            _files.add(self)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield this thread's connection, in autocommit mode; connect anew if the file has been replaced. Raises
        ConfigError if the file cannot be used, and sqlite3.Error."""
        link = self._link()
        if not (_no_fork.is_set() or _this_thread.uses):
            _no_fork.wait(FORK_PATIENCE)
        with link.lock:
            link.uses += 1
            _this_thread.uses += 1
            try:
                if link.uses == 1:
                    self._refresh(link)
                assert link.connection is not None
                yield link.connection
            finally:
                link.uses -= 1
                _this_thread.uses -= 1

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield a transaction that has the write lock from its start, so that what it reads stays true until it writes.
        Raises sqlite3.OperationalError if the file was deleted or replaced meanwhile: the outcome is unknown then."""
        link = self._link()
        with self.reading() as connection:
            try:
                with self.named():
                    connection.execute("BEGIN IMMEDIATE")
                yield connection
                self._refuse_inherited(link)
                with self.named():
                    connection.commit()
                if opening.identity(self._real) != link.files:
                    raise sqlite3.OperationalError(f"{self.path} was deleted or replaced while it was written to")
            except BaseException:
                if link.pid == os.getpid():
                    with suppress(sqlite3.Error):
                        connection.rollback()
                raise

    def query(self, statement: str, *values: Any) -> list[sqlite3.Row]:
        """Return the rows of a SELECT. Raises as `reading` does."""
        with self.reading() as connection:
            return connection.execute(statement, values).fetchall()

    @contextmanager
    def named(self) -> Iterator[None]:
        """Add the name of the file to an error of SQLite."""
        try:
            yield
        except sqlite3.Error as error:
            if str(self.path) not in str(error):
                error.args = (f"{error} ({self.path})",)
            raise

    def connection(self) -> Connection:
        """Return this thread's connection, which a fork in another thread may close at any time."""
        with self.reading() as connection:
            return connection

    def close(self) -> None:
        """Close this thread's connection; those of other threads close with their threads."""
        link: _Link | None = self._local.__dict__.pop("link", None)
        if link is not None:
            link.close()

    def _link(self) -> _Link:
        if _pid != os.getpid():  # a fork that bypassed Python's hooks
            _after_fork()
        link: _Link | None = getattr(self._local, "link", None)
        if link is None:
            link = self._local.link = _Link()
            with _registry:
                self._links.add(link)
        self._refuse_inherited(link)
        return link

    def _refuse_inherited(self, link: _Link) -> None:
        if self._inherited or link.pid != os.getpid():
            raise sqlite3.OperationalError(f"{self.path} was in use when this process was forked: it cannot use it")

    def _refresh(self, link: _Link) -> None:
        """Connect if there is no connection, or if its files are no longer those of this name."""
        if link.connection is not None:
            now = opening.identity(self._real)
            if now == link.files:
                return
            if now[0] != link.files[0]:
                self._tell_loss(now[0], link.files[0])
            link.close()
            opening.discard(self._real, link.files, now)
        self._real = os.path.realpath(self.path)
        try:
            link.connection, link.files = opening.connect(self._real, self._schema)
        except opening.UnusableError as error:
            raise ConfigError(f"The file {self.path} cannot be opened: {error}. Give another `file`.") from error
        self._tell_loss(link.files[0])

    def _tell_loss(self, found: object, was: object = None) -> None:
        """Tell once, for all threads, that another file, or none, was `found`. `was` is the one that this thread had:
        what it found may be stale if another thread has told of that one."""
        with _registry:
            last = self._last
            if was not in (None, last):
                return
            self._last = found
            lost = last not in (None, found)
            self.losses += lost
        if lost:
            log.error(
                "The file %s was deleted or replaced while it was in use: its contents are lost. The file that is "
                "there now is used from now on.",
                self.path,
            )

    def _forget_links(self) -> None:
        self._local = threading.local()
        self._links: weakref.WeakSet[_Link] = weakref.WeakSet()


class _Uses(threading.local):
    uses = 0


_this_thread = _Uses()
_pid = os.getpid()
_forking = threading.Lock()
_no_fork = threading.Event()
"""Cleared while a fork waits for the users of a file: no thread starts to use one then."""
_no_fork.set()
_registry = threading.Lock()
"""Locked while a file or a link is registered, and during a fork."""
_files: weakref.WeakSet[SQLiteFile] = weakref.WeakSet()
_locked: list[_Link] = []
"""The links that a fork has locked."""
_left_behind: list[object] = []


def _links() -> list[_Link]:
    return [link for file in _files for link in file._links]


def _before_fork() -> None:
    """Wait for the transactions of other threads, and close every connection that this thread does not use."""
    _forking.acquire()
    _no_fork.clear()
    until = time.monotonic() + FORK_PATIENCE
    while True:
        with _registry:
            links = _links()
        for link in links:
            if link not in _locked and link.lock.acquire(timeout=max(until - time.monotonic(), 0.0)):
                _locked.append(link)
        _registry.acquire()
        if all(link in _locked for link in _links()) or time.monotonic() > until:
            break
        _registry.release()
    for link in _locked:
        if not link.uses:
            link.close()
    opening.descriptors.acquire()


def _after_fork_in_parent() -> None:
    opening.descriptors.release()
    _registry.release()
    while _locked:
        _locked.pop().lock.release()
    _no_fork.set()
    _forking.release()


def _after_fork() -> None:
    """Drop a parent's connections. If one of a file's was in use, the file stays closed to this process: SQLite would
    take the parent's locks for its own."""
    global _pid, _registry, _forking, _no_fork
    _pid, _registry, opening.descriptors = os.getpid(), threading.Lock(), threading.RLock()
    _forking, _no_fork = threading.Lock(), threading.Event()
    _no_fork.set()
    _locked.clear()
    for file in list(_files):
        for link in list(file._links):
            if link.uses:
                file._inherited = True
                _left_behind.append(link)
            elif link.connection is not None:  # the fork bypassed Python's hooks
                link.close()
        file._forget_links()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)
