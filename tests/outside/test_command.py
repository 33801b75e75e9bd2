"""The command `defer-local` as people start and end it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from outside.processes import Process, Processes, wait_for
from outside.site import note, sending

from defer_core import defer

SLOW = """
import pathlib, time

def application(environ, start_response):
    pathlib.Path("begun").touch()
    time.sleep(float(pathlib.Path("seconds").read_text()))
    pathlib.Path("ended").touch()
    start_response("200 OK", [])
    return []
"""


def busy(processes: Processes, folder: Path, seconds: float) -> Process:
    """A dispatcher in the middle of a request of that length."""
    (folder / "slow.py").write_text(SLOW)
    (folder / "seconds").write_text(str(seconds))
    with sending(folder):
        defer(note, 1, _small_task=True)
    dispatcher = processes.python("-m", "defer_local", "--app", "slow:application")
    wait_for((folder / "begun").exists, "a request", dispatcher)
    return dispatcher


def test_a_second_ctrl_c_ends_it_at_once(processes: Processes, tmp_path: Path) -> None:
    dispatcher = busy(processes, tmp_path, 60)
    dispatcher.popen.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert dispatcher.popen.poll() is None
    began = time.monotonic()
    dispatcher.popen.send_signal(signal.SIGINT)
    assert dispatcher.ends() == 130
    assert time.monotonic() - began < 1.5
    with sending(tmp_path) as transport:
        assert [task.attempts for task in transport.queue.tasks()] == [1]  # for the next dispatcher


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_sigterm_lets_requests_end_also_after_ctrl_c(processes: Processes, tmp_path: Path, first: int) -> None:
    dispatcher = busy(processes, tmp_path, 2)
    for number in (first, signal.SIGTERM, signal.SIGTERM):  # a terminal asks its whole group; who started it asks, too
        dispatcher.popen.send_signal(number)
        time.sleep(0.1)
    assert dispatcher.ends() == 0, dispatcher.output()
    assert (tmp_path / "ended").exists()
    assert dispatcher.output().endswith("defer-local: stopped.\n")
    with sending(tmp_path) as transport:
        assert transport.queue.tasks() == []


STARTER = """
import os, subprocess, sys
subprocess.Popen([sys.executable, "-m", "defer_local", "--url", "http://127.0.0.1:1", "--parent", str(os.getpid())])
{then}
"""


@pytest.mark.parametrize("then", ["import time; time.sleep(0.01)", "os._exit(3)", "os.abort()"])
def test_it_ends_with_a_parent_that_has_ended_already(processes: Processes, tmp_path: Path, then: str) -> None:
    starter = processes.python("-c", STARTER.format(then=then))
    starter.ends()
    wait_for(lambda: "stopped." in starter.output(), "the end of the dispatcher", starter)
    assert "has ended" in starter.output()


def test_it_stays_with_a_parent_that_lives(processes: Processes, tmp_path: Path) -> None:
    dispatcher = processes.python("-m", "defer_local", "--url", "http://127.0.0.1:1", "--parent", str(os.getpid()))
    wait_for(lambda: "delivering" in dispatcher.output(), "a start", dispatcher)
    time.sleep(1.2)
    assert dispatcher.popen.poll() is None
