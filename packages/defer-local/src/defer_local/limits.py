"""How many tasks of one queue may run, and how fast they may begin: a token bucket kept in the queue's row."""

from __future__ import annotations

from defer_core.sqlite_file import Connection


def take(connection: Connection, queue: str, now: float) -> bool:
    """Whether a task of the queue may begin now; its token is used up then. A queue without a row has no limits."""
    row = connection.execute("SELECT * FROM queues WHERE name = ?", (queue,)).fetchone()
    if row is None:
        return True
    if row["max_running"] is not None and _running(connection, queue) >= row["max_running"]:
        return False
    if row["rate"] is None:
        return True
    tokens = min(row["burst"], row["tokens"] + max(0.0, now - row["refilled"]) * row["rate"])
    if tokens < 1:
        return False
    connection.execute("UPDATE queues SET tokens = ?, refilled = ? WHERE name = ?", (tokens - 1, now, queue))
    return True


def _running(connection: Connection, queue: str) -> int:
    count = "SELECT count(*) FROM tasks WHERE owner IS NOT NULL AND queue = ?"
    return int(connection.execute(count, (queue,)).fetchone()[0])
