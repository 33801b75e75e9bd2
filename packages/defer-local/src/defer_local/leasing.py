"""Which tasks begin next: the oldest due ones, of queues with room. Waiting tasks do not slow this down: of each queue
only the first are read."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from sqlite3 import Connection, Row

from . import limits
from .queued import QueuedTask
from .rows import from_row

_HEAD = """SELECT head.id FROM tasks AS head INDEXED BY tasks_of_queue
WHERE head.owner IS NULL {after} ORDER BY head.queue, head.due LIMIT 1"""
_QUEUES = f"""WITH RECURSIVE heads (id) AS (
    SELECT ({_HEAD.format(after="")})
    UNION ALL
    SELECT ({_HEAD.format(after="AND head.queue > tasks.queue")}) FROM heads JOIN tasks USING (id))
SELECT tasks.queue, max_running, rate, burst, tokens, refilled
FROM heads JOIN tasks USING (id) LEFT JOIN queues ON queues.name = tasks.queue
WHERE tasks.due <= ? AND coalesce(state, 'RUNNING') = 'RUNNING' ORDER BY tasks.due"""
_OF_QUEUE = """SELECT due, id FROM tasks INDEXED BY tasks_of_queue
WHERE owner IS NULL AND queue = ? AND due <= ? AND NOT forced ORDER BY due, id LIMIT ?"""
_FORCED = """SELECT due, id FROM tasks INDEXED BY tasks_forced
WHERE forced AND owner IS NULL AND due <= ? ORDER BY due, id LIMIT ?"""
_BEGIN = """UPDATE tasks SET owner = ?, attempts = ?, first_attempt = ?, last_attempt = ?, answered = NULL
WHERE id = ?"""
_SET_BACK = """UPDATE tasks SET due = :now + (due - coalesce(answered, last_attempt, due)),
last_attempt = min(last_attempt, :now), answered = min(answered, :now)
WHERE id IN (
    SELECT id FROM tasks INDEXED BY tasks_of_queue WHERE owner IS NULL AND due > :now
    AND coalesce(answered, last_attempt, created) > :now AND (last_attempt IS NOT NULL OR eta <= created))"""


def choose(connection: Connection, limit: int, now: float) -> list[tuple[float, int, Row | None]]:
    """Find up to `limit` tasks that may begin now, oldest first: when each was due, its id, and the row with the limits
    of its queue, or None if it is forced."""
    found: list[tuple[float, int, Row | None]] = [(*row, None) for row in connection.execute(_FORCED, (now, limit))]
    running, queues = limits.running(connection), 0
    for queue in connection.execute(_QUEUES, (now,)):
        room = min(limit, limits.room(queue, running.get(queue["queue"], 0), now))
        if room > 0:
            rows = connection.execute(_OF_QUEUE, (queue["queue"], now, room)).fetchall()
            found += [(*row, queue) for row in rows]
            queues += bool(rows)
        if queues == limit:  # the tasks of the remaining queues are younger than all these
            break
    return sorted(found, key=lambda each: each[:2])[:limit]


def lease(connection: Connection, owner: str, limit: int, now: float) -> list[QueuedTask]:
    """Begin an attempt of up to `limit` tasks, in the name of `owner`."""
    leased: list[QueuedTask] = []
    spent: Counter[Row] = Counter()
    for _, number, queue in choose(connection, limit, now) if limit else ():
        row = connection.execute("SELECT * FROM tasks WHERE id = ?", (number,)).fetchone()
        task = _begun(from_row(row), owner, now)
        connection.execute(_BEGIN, (owner, task.attempts, task.first_attempt, now, number))
        leased.append(task)
        if queue is not None:
            spent[queue] += 1
    for queue, count in spent.items():
        limits.spend(connection, queue, count, now)
    return leased


def _begun(task: QueuedTask, owner: str, now: float) -> QueuedTask:
    first = now if task.first_attempt is None else task.first_attempt
    return replace(task, owner=owner, attempts=task.attempts + 1, first_attempt=first, last_attempt=now, answered=None)


def clock_set_back(connection: Connection, now: float) -> None:
    """Correct waits after the clock was set back: a task that was sent or tried later than now starts its wait now. An
    ETA is a time of day, and stays."""
    connection.execute(_SET_BACK, {"now": now})
    connection.execute("UPDATE queues SET refilled = ? WHERE refilled > ?", (now, now))
