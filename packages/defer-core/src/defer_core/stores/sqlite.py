"""A store in one SQLite file, for work without Django and without Google Cloud; several processes may share it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

from ..config import located
from ..record import State, TaskRecord, new_id
from ..task import Routing
from ..text import storable
from .base import TaskStore, readable
from .sqlite_file import SQLiteFile

DEFAULT_FILE = ".defer/store.sqlite3"
"""The file of the records, unless `file` or the environment variable DEFER_STORE_FILE names another."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    id TEXT PRIMARY KEY, envelope BLOB NOT NULL, payload BLOB, routing TEXT NOT NULL, state TEXT NOT NULL,
    idempotent INTEGER NOT NULL, verified INTEGER NOT NULL, created REAL NOT NULL, due REAL NOT NULL,
    attempts INTEGER NOT NULL, doubtful_since REAL, lease TEXT NOT NULL, last_error TEXT NOT NULL, reason TEXT NOT NULL,
    first_attempt REAL, last_attempt REAL, label TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS records_due ON records (state, due, id);
CREATE INDEX IF NOT EXISTS records_id ON records (state, id);
CREATE INDEX IF NOT EXISTS records_created ON records (state, created);
CREATE INDEX IF NOT EXISTS records_unverified ON records (id) WHERE state = 'dead' AND NOT verified;
CREATE INDEX IF NOT EXISTS records_expiry ON records (coalesce(last_attempt, created)) WHERE state = 'dead';
"""
Rows = list[sqlite3.Row]
Hooks = list[Callable[[], object]]
"""Functions to call after a commit."""
Levels = list[Hooks]
"""The hooks of an open transaction and of its savepoints, outermost first."""
_COLUMNS = tuple(each.name for each in fields(TaskRecord))
_INSERT = f"INSERT INTO records ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"


class SQLiteTaskStore(TaskStore):
    """Keeps records in the file `file`. Transactions are this store's own, one for each thread; inner ones are
    savepoints."""

    name: ClassVar[str] = "sqlite"

    def __init__(self, *, file: str | Path | None = None) -> None:
        super().__init__()
        self.file = SQLiteFile(located(file, "DEFER_STORE_FILE", DEFAULT_FILE), SCHEMA)
        self._local = threading.local()

    def put(self, records: Sequence[TaskRecord], forget: Sequence[str] = ()) -> None:
        with self._writing() as connection:
            connection.executemany(
                "DELETE FROM records WHERE id = ? AND state = ?", [(each, State.PENDING.value) for each in forget]
            )
            connection.executemany(_INSERT, [_to_row(record) for record in records])

    def get(self, record_id: str) -> TaskRecord | None:
        found = self._read("SELECT * FROM records WHERE id = ?", record_id)
        return _from_row(found[0]) if found else None

    def delete(self, record_ids: Sequence[str], *, lease: str | None = None) -> int:
        condition, value = ("", ()) if lease is None else (" AND lease = ?", (lease,))
        with self._writing() as connection:
            cursor = connection.executemany(
                f"DELETE FROM records WHERE id = ?{condition}", [(each, *value) for each in record_ids]
            )
        return cursor.rowcount if record_ids else 0

    def lease_due(self, *, now: float, limit: int, seconds: float, state: State = State.PENDING) -> list[TaskRecord]:
        due = "SELECT id FROM records WHERE state = ? AND due <= ? ORDER BY due, id LIMIT ?"
        given = (str(state), now, limit)
        while self._read(due, *given):
            with self._writing() as connection:
                ids = [row["id"] for row in connection.execute(due, given).fetchall()]
                leases = [(new_id(), now + seconds, each) for each in ids]
                connection.executemany("UPDATE records SET lease = ?, due = ? WHERE id = ?", leases)
                leased = [connection.execute("SELECT * FROM records WHERE id = ?", (each,)).fetchone() for each in ids]
            if records := readable(leased, _from_row):
                return records
        return []

    def mark(self, record_id: str, *, lease: str, new_lease: str = "", **changes: Any) -> bool:
        changes["lease"] = new_lease
        values = [_to_column(value) for value in changes.values()]
        assignments = ", ".join(f"{name} = ?" for name in changes)
        with self._writing() as connection:
            cursor = connection.execute(
                f"UPDATE records SET {assignments} WHERE id = ? AND lease = ?", (*values, record_id, lease)
            )
        return cursor.rowcount > 0

    def list(self, state: State, *, limit: int = 100, after: str = "") -> list[TaskRecord]:
        query = "SELECT * FROM records WHERE state = ? AND id > ? ORDER BY id LIMIT ?"
        return readable(self._read(query, str(state), after, limit), _from_row)

    def count(self, state: State, *, due: float | None = None) -> int:
        condition, values = ("", ()) if due is None else (" AND due <= ?", (due,))
        query = f"SELECT count(*) FROM records WHERE state = ?{condition}"
        return int(self._read(query, str(state), *values)[0][0])

    def count_unverified(self) -> int:
        # the state is no parameter: with one, the partial index would not be used
        return int(self._read("SELECT count(*) FROM records WHERE state = 'dead' AND NOT verified")[0][0])

    def count_dead(self, since: float) -> int:
        recent = "state = 'dead' AND coalesce(last_attempt, created) >= ? AND last_attempt IS NOT NULL"
        return int(self._read(f"SELECT count(*) FROM records WHERE {recent}", since)[0][0])

    def expire(self, before: float, *, limit: int) -> int:
        old = "SELECT id FROM records WHERE state = 'dead' AND coalesce(last_attempt, created) < ? LIMIT ?"
        if not self._read(old, before, limit):
            return 0
        with self._writing() as connection:
            return connection.execute(f"DELETE FROM records WHERE id IN ({old})", (before, limit)).rowcount

    def oldest_pending(self) -> float | None:
        [(oldest,)] = self._read("SELECT min(created) FROM records WHERE state = ?", State.PENDING.value)
        return None if oldest is None else float(oldest)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        levels = self._levels()
        hooks: Hooks = []
        with self._savepoint(len(levels)) if levels else self.file.writing():
            levels.append(hooks)
            try:
                yield
            finally:
                levels.pop()
        if levels:
            levels[-1].extend(hooks)
        else:
            for hook in hooks:
                hook()

    def in_transaction(self) -> bool:
        return bool(self._levels())

    def on_commit(self, func: Callable[[], object]) -> None:
        levels = self._levels()
        if levels:
            levels[-1].append(func)
        else:
            func()

    def close(self) -> None:
        """Close this thread's connection."""
        self.file.close()

    def _levels(self) -> Levels:
        """Return the levels of this thread; empty outside a transaction."""
        if not hasattr(self._local, "levels"):
            self._local.levels = []
        return self._local.levels  # type: ignore[no-any-return]

    def _read(self, query: str, *values: Any) -> Rows:
        with self.file.named():
            return self.file.query(query, *values)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Write all or nothing: in a savepoint of the open transaction, else in a transaction of its own."""
        levels = self._levels()
        with self.file.named(), self._savepoint(len(levels)) if levels else self.file.writing() as connection:
            yield connection

    @contextmanager
    def _savepoint(self, level: int) -> Iterator[sqlite3.Connection]:
        with self.file.reading() as connection:
            connection.execute(f"SAVEPOINT level_{level}")
            try:
                yield connection
            except BaseException:
                connection.execute(f"ROLLBACK TO level_{level}")
                connection.execute(f"RELEASE level_{level}")
                raise
            connection.execute(f"RELEASE level_{level}")


def _to_row(record: TaskRecord) -> list[Any]:
    return [_to_column(getattr(record, name)) for name in _COLUMNS]


def _to_column(value: Any) -> Any:
    match value:
        case Routing():
            return value.to_json()
        case State():
            return value.value
        case str():
            return storable(value)
    return value


def _from_row(row: sqlite3.Row) -> TaskRecord:
    values = {name: row[name] for name in _COLUMNS}
    values["routing"] = Routing.from_json(row["routing"])
    values["state"] = State(row["state"])
    values["idempotent"], values["verified"] = bool(row["idempotent"]), bool(row["verified"])
    return TaskRecord(**values)
