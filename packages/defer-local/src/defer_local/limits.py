"""How many tasks of one queue may run, and how fast they may begin: a token bucket kept in the queue's row."""

from __future__ import annotations

from sqlite3 import Connection, Row

UNLIMITED = 1 << 30
_RUNNING = "SELECT queue, count(*) FROM tasks INDEXED BY tasks_running WHERE owner IS NOT NULL GROUP BY queue"


def running(connection: Connection) -> dict[str, int]:
    """Count the running tasks of each queue."""
    return dict(connection.execute(_RUNNING).fetchall())


def room(limits: Row, running: int, now: float) -> int:
    """Return how many more tasks of a queue may begin now. A limit that is NULL does not apply."""
    free = UNLIMITED if limits["max_running"] is None else limits["max_running"] - running
    return free if limits["rate"] is None else min(free, int(_tokens(limits, now)))


def spend(connection: Connection, limits: Row, count: int, now: float) -> None:
    """Spend the tokens of tasks that begin now."""
    if limits["rate"] is not None:
        left = _tokens(limits, now) - count
        connection.execute("UPDATE queues SET tokens = ?, refilled = ? WHERE name = ?", (left, now, limits["queue"]))


def _tokens(limits: Row, now: float) -> float:
    since = max(0.0, now - limits["refilled"])
    return float(min(limits["burst"], limits["tokens"] + since * limits["rate"]))
