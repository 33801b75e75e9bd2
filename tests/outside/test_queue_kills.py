"""Whoever comes, goes, forks or is killed: what was acknowledged runs, and the files are in order.

`QUEUE_KILL_ROUNDS=50 hatch run outside -k acknowledged` takes longer.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from itertools import count
from pathlib import Path

import pytest
from outside.processes import Process, Processes, wait_for
from outside.queue_users import ACKNOWLEDGED
from outside.site import QUEUE, ran

ROUNDS = int(os.environ.get("QUEUE_KILL_ROUNDS", "4"))
numbers = count(1)


class Users:
    """The processes on one queue; `kill_some` replaces what it kills."""

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.living = [(start, start()) for start in (self.long, self.forking, self.reader, self.dispatcher)]

    def user(self, role: str, amount: int) -> Process:
        first = str(next(numbers) * 1_000_000)
        return self.processes.python("-m", "outside.queue_users", role, first, str(amount))

    def long(self) -> Process:
        return self.user("long", 900_000)

    def forking(self) -> Process:
        return self.user("forking", 900_000)

    def reader(self) -> Process:
        return self.user("read", 900_000)

    def dispatcher(self) -> Process:
        return self.processes.python("-m", "defer_local", "--app", "outside.wsgi:application")

    def kill_some(self) -> None:
        for index in random.sample(range(len(self.living)), 2):
            start, process = self.living[index]
            process.kill()
            self.living[index] = (start, start())

    def kill_all(self) -> None:
        for _, process in self.living:
            process.kill()


@pytest.mark.timeout(300 + 30 * ROUNDS)
def test_what_was_acknowledged_runs(processes: Processes, tmp_path: Path) -> None:
    users = Users(processes)
    started: list[Process] = []
    for _ in range(ROUNDS):
        some = [users.user("short", 3) for _ in range(3)]
        started += some
        time.sleep(random.uniform(0.0, 1.0))
        users.kill_some()
        random.choice(some).kill()
        for each in some:
            each.ends()
    users.kill_all()
    for process in [*started, *(process for _, process in users.living)]:
        assert "Traceback" not in process.output(), process.output()
    for file in (QUEUE, QUEUE.with_name("store.sqlite3")):
        in_order(tmp_path / file)
    users.dispatcher()
    assert processes.python("-m", "defer_core", "sweep", DEFER_TRANSPORT="local").ends() == 0
    told = acknowledged(tmp_path)
    assert len(told) > 6 * ROUNDS, "the senders sent"
    wait_for(lambda: told <= set(ran(tmp_path)), f"all of {len(told)} tasks", processes.started[-2], seconds=240)
    print(f"{ROUNDS} rounds, {len(told)} acknowledged, {len(ran(tmp_path))} runs")


def acknowledged(folder: Path) -> set[int]:
    return {int(line) for line in (folder / ACKNOWLEDGED).read_text().split()}


def in_order(path: Path) -> None:
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
