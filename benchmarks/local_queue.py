"""The embedded queue: what tasks that wait cost the others, and how long one task takes on a slow disk.

Rates are those of a dispatcher of eight threads whose target answers at once, beside the same with few tasks waiting.
"""

from __future__ import annotations

import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from defer_core.task import Routing
from defer_core.transports.base import Message
from defer_local import Dispatcher, DurableQueue, LocalTransport
from defer_local.queued import QueuedTask
from defer_local.target import Target
from defer_local.transport import new_name

from ._figures import Figure

WAITING, TASKS, TURNS = 200_000, 1_000, 21
COMMIT, LATENCIES = 0.02, 60
LIMITS: dict[str, dict[str, Any]] = {
    "plain": {},
    "max_running": {"max_running": 8},
    "behind a full queue": {"rate": 5.0, "burst": 5.0, "tokens": 0.0, "refilled": time.time() + 86400.0},
}


def rows() -> list[Figure]:
    """The figures."""
    return [*(_scaling(case) for case in LIMITS), _latency()]


class Counting(Target):
    """Answers 200 at once, and says when it has been asked often enough."""

    def __init__(self, count: int) -> None:
        self.left, self.lock, self.done = count, threading.Lock(), threading.Event()

    def deliver(self, task: QueuedTask, secret: str) -> int:
        with self.lock:
            self.left -= 1
            if self.left == 0:
                self.done.set()
        return 200


def _scaling(case: str) -> Figure:
    """The rate with many waiting to that with few, in turn, as the median."""
    with _queue() as few, _queue() as many:
        limited, served = "limited", "others" if case.startswith("behind") else "limited"
        for queue in (few, many):
            _limit(queue, limited, LIMITS[case])
        _fill(many, limited, WAITING)
        pairs = []
        for turn in range(TURNS):
            if served != limited:
                _fill(many, served, TASKS)
            _fill(few, served, TASKS)
            if turn % 2:
                pairs.append((_rate(few), _rate(many)))
            else:
                pairs.append((_rate(many), _rate(few))[::-1])
    floor, ours = (statistics.median(each) for each in zip(*pairs, strict=True))
    ratio = statistics.median(many / few for few, many in pairs)
    return f"local queue, {WAITING:,} waiting, {case}", f"{floor:,.0f}/s", f"{ours:,.0f}/s", ratio, "≥ 0.85"


def _latency() -> Figure:
    """From `send` to the target, one task at a time, beside the two commits that it cannot do without."""
    connect, sqlite3.connect = sqlite3.connect, partial(sqlite3.connect, factory=SlowDisk)  # type: ignore[assignment]
    try:
        with _queue() as queue:
            transport, took = LocalTransport(file=queue.file.path), []
            for number in range(LATENCIES):
                target = Counting(1)
                if number == 0:
                    dispatcher = Dispatcher(file=queue.file.path, target=target)
                    dispatcher.start()
                dispatcher.target = target
                time.sleep(0.1 + number % 7 / 300)
                began = time.perf_counter()
                transport.send(Message(body=b"x"))
                assert target.done.wait(30)
                took.append(time.perf_counter() - began)
            dispatcher.stop()
            transport.close()
    finally:
        sqlite3.connect = connect
    p50 = statistics.median(took)
    what = f"local queue, one task, commits of {COMMIT * 1000:.0f} ms, p50"
    return what, f"{2000 * COMMIT:.0f} ms", f"{1000 * p50:.0f} ms", p50 / (2 * COMMIT), "≤ 1.25"


class SlowDisk(sqlite3.Connection):
    """Takes its time to commit."""

    def commit(self) -> None:
        time.sleep(COMMIT)
        super().commit()


@contextmanager
def _queue() -> Iterator[DurableQueue]:
    with tempfile.TemporaryDirectory() as folder:
        queue = DurableQueue(Path(folder) / "queue.sqlite3")
        yield queue
        queue.close()


def _limit(queue: DurableQueue, name: str, limits: dict[str, Any]) -> None:
    columns = {"name": name, "state": "RUNNING", "proto": b"", **limits}
    with queue.file.writing() as connection:
        query = f"INSERT INTO queues ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        connection.execute(query, tuple(columns.values()))


def _fill(queue: DurableQueue, name: str, count: int) -> None:
    for _ in range(0, count, 1000):
        queue.add([_task(name) for _ in range(1000)])


def _task(queue: str) -> QueuedTask:
    now = time.time() - (60.0 if queue == "limited" else 0.0)
    return QueuedTask(
        queue=queue, name=new_name(), routing=Routing(queue=queue), body=b"x" * 200, eta=now, created=now, due=now
    )


def _rate(queue: DurableQueue) -> float:
    """Tasks a second, of the next ones."""
    target = Counting(TASKS)
    began = time.perf_counter()
    with Dispatcher(file=queue.file.path, target=target):
        assert target.done.wait(120)
        took = time.perf_counter() - began
    return TASKS / took
