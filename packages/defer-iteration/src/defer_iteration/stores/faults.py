"""What a database error is about: a concurrent transaction, a lost connection, or what was asked for."""

from __future__ import annotations

from collections.abc import Iterator

from django.db import IntegrityError, InterfaceError, OperationalError, connections

from .base import Fault

_CONTENTION = {
    *("40001", "40P01", "55P03"),  # PostgreSQL: serialization failure, deadlock, lock timeout
    *(5, 6),  # SQLite: busy, locked
    *(1205, 1213),  # MySQL: lock timeout, deadlock
}
_CONNECTION = {
    *("57P01", "57P02", "57P03", "57P05", "25P03"),  # PostgreSQL: shut down, crashed, starting, idle for too long
    *(2006, 2013, 4031),  # MySQL: gone, lost, idle for too long
}
_LOST = "08"
"""The class of PostgreSQL's codes for errors of connections."""
_GONE = (
    *("closed the connection", "connection has been closed", "connection already closed"),
    *("connection is closed", "connection is lost", "send data to server", "receive data from server"),
)
"""What libpq, psycopg and psycopg2 say, without a code, of a connection that they found lost. By the time an error is
examined, Django may have dropped that connection."""
_LOCKED = ("database is locked", "database table is locked", "deadlock detected")
"""What drivers say of contention without a code."""


def fault_of(error: BaseException) -> Fault | None:
    """Return what an error, or the error it was raised from, says about the transaction that raised it."""
    if isinstance(error, IntegrityError):  # constraints may be checked only at the commit
        return Fault.CONTENT
    for each in _causes(error):
        code = _code(each)
        if code in _CONTENTION or (isinstance(each, OperationalError) and str(each).startswith(_LOCKED)):
            return Fault.CONTENTION
        if code in _CONNECTION or str(code).startswith(_LOST):
            return Fault.CONNECTION
        may_be_lost = isinstance(each, OperationalError | InterfaceError)
        if may_be_lost and (any(text in str(each) for text in _GONE) or _is_one_closed()):
            return Fault.CONNECTION
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


def _code(error: BaseException) -> str | int | None:
    """Return the code of an error of psycopg, psycopg2, sqlite3 or a client of MySQL, or None."""
    for name in ("sqlstate", "pgcode"):
        if code := getattr(error, name, None):
            return str(code)
    if (number := getattr(error, "sqlite_errorcode", None)) is not None:
        return int(number) & 0xFF  # without the extension
    first = error.args[0] if error.args and isinstance(error, OperationalError) else None
    return first if type(first) is int and first > 1000 else None


def _is_one_closed() -> bool:
    """Return whether a connection of this thread has been closed by its server."""
    return any(bool(getattr(each.connection, "closed", False)) for each in connections.all(initialized_only=True))
