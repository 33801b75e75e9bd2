"""Workers in threads, each with connections of its own, which take tasks from a queue in memory."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.db import connections

from defer_core.delivery import Delivery
from defer_core.run.execute import Outcome, execute


class Killed(BaseException):
    """A worker dies: its connection is cut, and with it its transaction."""


Lost = tuple[type[BaseException], ...]
"""What a delivery may come to without an answer that is good for its queue, which keeps the task."""


TWICE = 0.03
"""How often a worker without anything to do takes a task that another worker has at hand, each time that it looks."""
BACKOFF = 0.1
"""Seconds, at the most, before a task is delivered again."""


def work(
    queue: Any, dice: random.Random, in_flight: Counter[str], lock: threading.Lock, stop: threading.Event, lost: Lost
) -> None:
    """Deliver tasks, now and then one that another worker has at hand too, until there are none."""
    try:
        while not stop.is_set() and deliver_one(queue, dice, in_flight, lock, lost):
            pass
    finally:
        connections.close_all()


def deliver_one(queue: Any, dice: random.Random, in_flight: Counter[str], lock: threading.Lock, lost: Lost) -> bool:
    """Whether there was any task."""
    with lock:
        tasks = queue.queued()
        free = [task for task in tasks if not in_flight[task.name] or dice.random() < TWICE]
        task = dice.choice(free) if free else None
        if task is not None:
            in_flight[task.name] += 1
    if task is None:
        time.sleep(0.01)
        return bool(tasks)
    try:
        if execute(task.message.body, Delivery(task_name=task.name)) is Outcome.DONE:
            queue.remove(task)
        else:
            time.sleep(dice.uniform(0, BACKOFF))
    except lost:
        connections.close_all()
    finally:
        with lock:
            in_flight[task.name] -= 1
    return True


def finish(queue: Any, *, seconds: float, workers: int = 4, lost: Lost = (Killed,)) -> None:
    """Let so many workers empty the queue. Raises TimeoutError."""
    in_flight = Counter[str]()
    lock, stop = threading.Lock(), threading.Event()
    with ThreadPoolExecutor(workers) as pool:
        done = [pool.submit(work, queue, random.Random(seed), in_flight, lock, stop, lost) for seed in range(workers)]
        try:
            for each in done:
                each.result(seconds)
        finally:
            stop.set()
