"""The tables of the durable queue, and a task as a row of them."""

from __future__ import annotations

import sqlite3
from dataclasses import fields
from sqlite3 import Connection
from typing import Any

from defer_core.spi import Routing

from .queued import QueuedTask

NAME_RETENTION = 86400.0
"""Seconds for which the name of a finished task is refused."""

# the long columns come last: SQLite reads those before the one that it needs
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS queues (
    name TEXT PRIMARY KEY, state TEXT NOT NULL, proto BLOB NOT NULL, deleted REAL, retry TEXT,
    max_running INTEGER, rate REAL, burst REAL, tokens REAL, refilled REAL);
CREATE TABLE IF NOT EXISTS tasks (
    id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, name TEXT NOT NULL, method TEXT NOT NULL,
    eta REAL NOT NULL, created REAL NOT NULL, due REAL NOT NULL,
    attempts INTEGER NOT NULL, responses INTEGER NOT NULL, executions INTEGER NOT NULL, previous_response INTEGER,
    retry_reason TEXT NOT NULL, first_attempt REAL, last_attempt REAL, answered REAL, forced INTEGER NOT NULL,
    owner TEXT, routing TEXT NOT NULL, proto BLOB, body BLOB NOT NULL, UNIQUE (queue, name));
CREATE INDEX IF NOT EXISTS tasks_of_queue ON tasks (queue, due) WHERE owner IS NULL;
CREATE INDEX IF NOT EXISTS tasks_forced ON tasks (due) WHERE forced AND owner IS NULL;
CREATE INDEX IF NOT EXISTS tasks_running ON tasks (owner, queue) WHERE owner IS NOT NULL;
CREATE TABLE IF NOT EXISTS names (
    queue TEXT NOT NULL, name TEXT NOT NULL, until REAL NOT NULL, PRIMARY KEY (queue, name)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS names_until ON names (until);
CREATE TABLE IF NOT EXISTS dispatchers (
    id TEXT PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, alive_until REAL NOT NULL);
"""
_COLUMNS = tuple(each.name for each in fields(QueuedTask))
_STEADY = {"queue", "name", "routing", "method", "body", "proto", "eta", "created"}
_CHANGING = tuple(name for name in _COLUMNS if name not in _STEADY)
_ADD = f"""INSERT INTO tasks ({", ".join(_COLUMNS)}) SELECT {", ".join("?" * len(_COLUMNS))}
WHERE NOT EXISTS (SELECT 1 FROM names WHERE queue = ? AND name = ? AND until > ?)
ON CONFLICT (queue, name) DO NOTHING"""
_UPDATE = f"UPDATE tasks SET {', '.join(f'{name} = ?' for name in _CHANGING)} WHERE queue = ? AND name = ?"


def add(connection: Connection, task: QueuedTask, now: float) -> bool:
    """Insert a task. Return False if its name is that of a waiting or recent task."""
    return connection.execute(_ADD, (*_to_row(task), task.queue, task.name, now)).rowcount > 0


def find_task(connection: Connection, queue: str, name: str) -> QueuedTask | None:
    """Return a task, or None."""
    row = connection.execute("SELECT * FROM tasks WHERE queue = ? AND name = ?", (queue, name)).fetchone()
    return None if row is None else from_row(row)


def update(connection: Connection, task: QueuedTask) -> None:
    """Write the columns of an existing task that change."""
    connection.execute(_UPDATE, (*(getattr(task, name) for name in _CHANGING), task.queue, task.name))


def remove(connection: Connection, queue: str, name: str, now: float) -> bool:
    """Delete a task and keep its name taken. Return whether it existed."""
    gone = connection.execute("DELETE FROM tasks WHERE queue = ? AND name = ?", (queue, name)).rowcount > 0
    if gone:
        connection.execute("INSERT OR REPLACE INTO names VALUES (?, ?, ?)", (queue, name, now + NAME_RETENTION))
    return gone


def remove_all(connection: Connection, queue: str, now: float) -> None:
    """Delete the tasks of a queue and keep their names taken."""
    query = "INSERT OR REPLACE INTO names SELECT queue, name, ? FROM tasks WHERE queue = ?"
    connection.execute(query, (now + NAME_RETENTION, queue))
    connection.execute("DELETE FROM tasks WHERE queue = ?", (queue,))


def from_row(row: sqlite3.Row) -> QueuedTask:
    """Return the task of a row of `tasks`."""
    values = {name: row[name] for name in _COLUMNS}
    return QueuedTask(**values | {"routing": Routing.from_json(row["routing"]), "forced": bool(row["forced"])})


def _to_row(task: QueuedTask) -> list[Any]:
    values = {name: getattr(task, name) for name in _COLUMNS}
    return list((values | {"routing": task.routing.to_json()}).values())
