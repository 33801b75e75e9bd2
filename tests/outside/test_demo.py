"""The demonstration tells the truth, whatever serves the shop, and leaves no process behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from outside.processes import Process, Processes, wait_for

SHOP = Path(__file__).parents[2] / "examples" / "shop"
sys.path.append(str(SHOP))

from tour import honesty  # noqa: E402 (it is in the shop)


@pytest.mark.parametrize("server", ["waitress", "gunicorn-sync", "runserver"])
def test_every_check_holds(processes: Processes, server: str) -> None:
    demo = processes.python(SHOP / "demo.py", "--rows", "2000", "--server", server)
    assert demo.ends() == 0, demo.output()
    assert "All 20 checks passed" in demo.output()


def children(demo: Process) -> set[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(demo.popen.pid)], capture_output=True, text=True)
    return {int(each) for each in listed.stdout.split()}


def is_alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_leaves_no_process_behind(processes: Processes, tmp_path: Path, how: int) -> None:
    demo = processes.python(SHOP / "demo.py", "--rows", "200000", TMPDIR=str(tmp_path))
    wait_for(lambda: "An iteration" in demo.output(), "the iteration", demo)
    left = children(demo)
    assert len(left) >= 2
    demo.popen.send_signal(how)
    demo.ends()
    wait_for(lambda: not any(map(is_alive, left)), "the end of its processes", demo)


SERVER = """
INFO shop.attempts: task t-a retry 0 begins
INFO shop.attempts: task t-a retry 0 answers 200
INFO shop.attempts: task t-b retry 0 begins
ERROR django.request: Internal Server Error
Traceback (most recent call last):
ConnectionError: The bank does not answer. (This is part of the demonstration.)
INFO shop.attempts: task t-b retry 0 answers 500
INFO shop.attempts: task t-b retry 1 begins
INFO shop.attempts: task t-b retry 1 answers 200
INFO shop.attempts: task t-c retry 0 begins
INFO shop.attempts: task t-c retry 1 begins
INFO shop.attempts: task t-c retry 1 answers 200
"""
DISPATCHER = """
2025-11-29 13:11:38,120 INFO Task t-a (orders.tasks:ship) in default: attempt 1: 200 in 0.1 s
2025-11-29 13:11:38,120 WARNING Task t-b in default: attempt 1: 500 in 0.1 s
"""
CUT = "2025-11-29 13:11:39,120 WARNING Task t-c (orders.tasks:ship) in default: attempt 1: no answer in 0.1 s\n"


def failures(server: str = "", dispatcher: str = "", cut: str = CUT) -> list[str]:
    """The claims that do not hold, where these lines stand in the logs as well."""
    made = honesty.check(SERVER + server, DISPATCHER + CUT + dispatcher, ["t-b"], cut)
    return [check.claim for check in made if not check.held]


def test_what_the_scenes_provoked_is_no_fault() -> None:
    assert failures() == []
    answered = "INFO shop.attempts: task t-c retry 2 begins\nINFO shop.attempts: task t-c retry 2 answers 200"
    assert failures(server=answered) == [], "the server was killed before its answer got out"


@pytest.mark.parametrize(
    "line",
    [
        "INFO shop.attempts: task t-a retry 1 begins",
        "INFO shop.attempts: task t-d retry 0 begins",
        "INFO shop.attempts: task t-d retry 1 begins\nINFO shop.attempts: task t-d retry 1 answers 200",
        "INFO shop.attempts: task t-d retry 0 begins\nINFO shop.attempts: task t-d retry 0 answers 408",
    ],
)
def test_an_attempt_that_nothing_asked_for_is_a_fault(line: str) -> None:
    assert failures(server=line) == ["each was asked for"]


@pytest.mark.parametrize(
    "line",
    [
        "WARNING django.request: Not Found: /favicon.ico",
        "[2025-11-29 13:11:38 +0000] [17] [ERROR] Worker (pid:18) was sent SIGKILL!",
        "Exception in thread Thread-1:\nTraceback (most recent call last):\nValueError: 1",
        "/shop/orders/models.py:1: RuntimeWarning: DateTimeField received a naive datetime",
    ],
)
def test_a_warning_that_nothing_provoked_is_a_fault(line: str) -> None:
    assert failures(server=line) == ["the server warns of nothing that was not provoked"]
    assert failures(dispatcher=line) == ["the dispatcher warns of nothing that was not provoked"]


def test_a_warning_of_a_server_that_nobody_killed_is_a_fault() -> None:
    assert failures(cut="") == ["each was asked for", "the dispatcher warns of nothing that was not provoked"]
