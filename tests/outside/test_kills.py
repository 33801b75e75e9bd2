"""A queue, a dispatcher and gunicorn under `kill -9`: nothing is lost, and only what was under way is repeated.

DEFER_OUTSIDE_KILLS=50 DEFER_OUTSIDE_TASKS=20000 makes it long.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import sqlite3
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import services
from outside.processes import Process, Processes, wait_for
from outside.site import ATTEMPTS, QUEUE, attempt, attempts, sending

from defer_core import defer_many

TASKS = int(os.environ.get("DEFER_OUTSIDE_TASKS", "1000"))
KILLS = int(os.environ.get("DEFER_OUTSIDE_KILLS", "6"))
CONCURRENCY = 8
WORKERS = {"sync": ("-w", "2"), "gthread": ("-w", "2", "--threads", "4")}
SLACK = 1.0
"""Seconds between an attempt in the dispatcher's hands and its traces in the server's, on a busy machine."""


class Site:
    """Both sides, and the moments at which one of them was killed."""

    def __init__(self, processes: Processes, workers: str) -> None:
        self.processes, self.port, self.kills = processes, services.free_port(), list[float]()
        self.serving = ("-m", "gunicorn", *WORKERS[workers], "-b", f"127.0.0.1:{self.port}", "outside.wsgi:application")
        self.server, self.dispatcher = self.serve(), self.dispatch()

    def serve(self) -> Process:
        return self.processes.serve(self.port, *self.serving)

    def dispatch(self) -> Process:
        return self.processes.python("-m", "defer_local", "--url", f"http://127.0.0.1:{self.port}")

    def kill(self, whom: str) -> None:
        self.kills.append(time.time())
        if whom == "the dispatcher":
            self.dispatcher.kill()
            self.dispatcher = self.dispatch()
        elif whom == "the server":
            self.server.kill()
            self.server = self.serve()
        else:
            worker = re.findall(r"Booting worker with pid: (\d+)", self.server.output())[-1]
            os.kill(int(worker), signal.SIGKILL)

    def warnings(self) -> Counter[str]:
        """What the dispatchers warned of, without its particulars."""
        outputs = "".join(process.output() for process in self.processes.started)
        found = re.findall(r"(?:WARNING|ERROR) (?:Task \S+ (?:\(\S+\) )?in default: attempt \d+: )?(.*)", outputs)
        return Counter(re.sub(r"\d+(\.\d+)?", "N", each.partition(" (outside")[0]) for each in found)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("workers", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in WORKERS])
def test_kills_lose_nothing_and_repeat_what_was_under_way(processes: Processes, tmp_path: Path, workers: str) -> None:
    site, numbers = Site(processes, workers), iter(range(TASKS))
    began = time.monotonic()
    victims = itertools.cycle(["the dispatcher", "the server", "a worker"])
    with sending(tmp_path) as transport:
        for kill in range(1, KILLS + 1):
            defer_many(attempt, [(number,) for number in itertools.islice(numbers, TASKS // KILLS)], _small_task=True)
            part = (kill - 0.5) * TASKS / KILLS
            wait_for(partial(has_begun, tmp_path, part), "a part of the tasks", *processes.started[-2:])
            site.kill(next(victims))
        defer_many(attempt, [(number,) for number in numbers], _small_task=True)
        wait_for(lambda: transport.queue.tasks() == [], "the end", *processes.started[-2:], seconds=300)
    took = time.monotonic() - began
    told = attempts(tmp_path)
    assert set(told) == set(range(TASKS)), "tasks are lost"
    assert all(any(what == "ends" for what, _ in each) for each in told.values()), "tasks did not come to their end"
    repeats = {number: beginnings for number, each in told.items() if len(beginnings := begun(each)) > 1}
    runs = sum(map(len, map(begun, told.values())))
    print(f"\n{workers}: {TASKS} tasks, {len(site.kills)} kills, {took:.0f} s, {runs} runs; {dict(site.warnings())}")
    assert runs - TASKS <= KILLS * CONCURRENCY
    for number, each in repeats.items():
        for first, again in itertools.pairwise(each):
            over = next((when for what, when in told[number] if what == "ends" and when > first), again)
            assert any(first - SLACK < kill < over + SLACK for kill in site.kills), f"{number}: {told[number]}"
    assert not [line for line in site.warnings() if not re.match("no answer|Taking over|No server listens", line)]
    with sqlite3.connect(tmp_path / QUEUE) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()


def has_begun(folder: Path, tasks: float) -> bool:
    ledger = folder / ATTEMPTS
    return ledger.exists() and ledger.read_bytes().count(b"begins") >= tasks


def begun(told: list[tuple[str, float]]) -> list[float]:
    return [when for what, when in told if what == "begins"]
