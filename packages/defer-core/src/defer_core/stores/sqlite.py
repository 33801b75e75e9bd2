"""A store in one SQLite file, for work without Django and without Google Cloud; several processes may share it."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

from ..record import State, TaskRecord, new_id
from ..sqlite_file import SQLiteFile
from ..task import Routing
from .base import TaskStore

DEFAULT_FILE = ".defer/store.sqlite3"
"""Where records are where neither `file` nor the environment variable DEFER_STORE_FILE says so."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    id TEXT PRIMARY KEY, envelope BLOB NOT NULL, payload BLOB, routing TEXT NOT NULL, state TEXT NOT NULL,
    idempotent INTEGER NOT NULL, verified INTEGER NOT NULL, created REAL NOT NULL, due REAL NOT NULL,
    attempts INTEGER NOT NULL, doubtful_since REAL, lease TEXT NOT NULL, last_error TEXT NOT NULL, reason TEXT NOT NULL,
    first_attempt REAL, last_attempt REAL, label TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS records_due ON records (state, due, id);
CREATE INDEX IF NOT EXISTS records_id ON records (state, id);
CREATE INDEX IF NOT EXISTS records_created ON records (state, created);
"""
Hooks = list[Callable[[], object]]
"""What is to follow a commit."""
Levels = list[Hooks]
"""The hooks of an open transaction and of its savepoints, outermost first."""
_COLUMNS = tuple(each.name for each in fields(TaskRecord))
_INSERT = f"INSERT INTO records ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"


class SQLiteTaskStore(TaskStore):
    """Keeps records in the file `file`. Transactions are this store's own, one a thread; inner ones are savepoints."""

    name: ClassVar[str] = "sqlite"

    def __init__(self, *, file: str | Path | None = None) -> None:
        super().__init__()
        self.file = SQLiteFile(file or os.environ.get("DEFER_STORE_FILE") or DEFAULT_FILE, SCHEMA)
        self._local = threading.local()

    def put(self, records: Sequence[TaskRecord], forget: Sequence[str] = ()) -> None:
        with self._writing() as connection:
            connection.executemany(
                "DELETE FROM records WHERE id = ? AND state = ?", [(each, State.PENDING.value) for each in forget]
            )
            connection.executemany(_INSERT, [_to_row(record) for record in records])

    def get(self, record_id: str) -> TaskRecord | None:
        row = self._read("SELECT * FROM records WHERE id = ?", record_id).fetchone()
        return None if row is None else _from_row(row)

    def delete(self, record_ids: Sequence[str], *, lease: str | None = None) -> int:
        condition, value = ("", ()) if lease is None else (" AND lease = ?", (lease,))
        with self._writing() as connection:
            cursor = connection.executemany(
                f"DELETE FROM records WHERE id = ?{condition}", [(each, *value) for each in record_ids]
            )
        return cursor.rowcount if record_ids else 0

    def lease_due(self, *, now: float, limit: int, seconds: float) -> list[TaskRecord]:
        due = "SELECT id FROM records WHERE state = ? AND due <= ? ORDER BY due, id LIMIT ?"
        given = (State.PENDING.value, now, limit)
        if self._read(due, *given).fetchone() is None:
            return []
        with self._writing() as connection:
            ids = [row["id"] for row in connection.execute(due, given).fetchall()]
            leases = [(new_id(), now + seconds, each) for each in ids]
            connection.executemany("UPDATE records SET lease = ?, due = ? WHERE id = ?", leases)
            leased = [connection.execute("SELECT * FROM records WHERE id = ?", (each,)).fetchone() for each in ids]
        return [_from_row(row) for row in leased]

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
        return [_from_row(row) for row in self._read(query, str(state), after, limit)]

    def count(self, state: State) -> int:
        return int(self._read("SELECT count(*) FROM records WHERE state = ?", str(state)).fetchone()[0])

    def oldest_pending(self) -> float | None:
        row = self._read("SELECT min(created) FROM records WHERE state = ?", State.PENDING.value).fetchone()
        return None if row[0] is None else float(row[0])

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
        """Those of this thread; empty outside a transaction."""
        if not hasattr(self._local, "levels"):
            self._local.levels = []
        return self._local.levels  # type: ignore[no-any-return]

    def _read(self, query: str, *values: Any) -> sqlite3.Cursor:
        return self.file.connection().execute(query, values)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """All or nothing: a savepoint in the open transaction, else a transaction of its own."""
        levels = self._levels()
        with self._savepoint(len(levels)) if levels else self.file.writing():
            yield self.file.connection()

    @contextmanager
    def _savepoint(self, level: int) -> Iterator[None]:
        connection = self.file.connection()
        connection.execute(f"SAVEPOINT level_{level}")
        try:
            yield
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
            # tracebacks may hold lone surrogates, which are no UTF-8
            return value.encode("utf-8", "backslashreplace").decode()
    return value


def _from_row(row: sqlite3.Row) -> TaskRecord:
    values = {name: row[name] for name in _COLUMNS}
    values["routing"] = Routing.from_json(row["routing"])
    values["state"] = State(row["state"])
    values["idempotent"], values["verified"] = bool(row["idempotent"]), bool(row["verified"])
    return TaskRecord(**values)
