"""The commands `status` and `health` as people, pipes and machines run them."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from outside.processes import Processes, wait_for

SHOP = """
from defer_core import configure
configure(transport="local", store="sqlite", store_options={"file": "tasks.sqlite3"}, queues=["default"])
"""
COMMANDS = {
    "python -m defer_core": ["-m", "defer_core", "--app", "shop_main", "{}"],
    "manage.py": ["-m", "django", "defer_{}", "--settings", "outside.supposed.shop_settings"],
}


@pytest.fixture(params=COMMANDS)
def command(request: pytest.FixtureRequest, processes: Processes) -> Sequence[str]:
    """How a command is run in a project: `{}` stands for its name."""
    (processes.folder / "shop_main.py").write_text(SHOP)
    migrate = ["-m", "django", "migrate", "-v", "0", "--settings", "outside.supposed.shop_settings"]
    assert processes.python(*migrate, DEFER_TRANSPORT="local").ends() == 0
    processes.environ |= {"DEFER_TRANSPORT": "local", "PYTHONUNBUFFERED": ""}  # as people run it
    return COMMANDS[request.param]


def named(command: Sequence[str], name: str, *options: str) -> list[str]:
    return [*(each.format(name) for each in command), *options]


def test_watching_ends_with_ctrl_c(processes: Processes, command: Sequence[str]) -> None:
    watching = processes.python(*named(command, "status", "--watch", "0.1", "--json"))
    wait_for(lambda: watching.output().count("\n") >= 2, "a second look", watching)
    watching.popen.send_signal(signal.SIGINT)
    assert watching.ends() == 0
    assert "Traceback" not in watching.output()
    assert {json.loads(line)["transport"] for line in watching.output().splitlines()} == {"local"}


@pytest.mark.parametrize("options", [["--watch", "0.1"], []], ids=["watched", "once"])
def test_it_ends_with_the_pipe(processes: Processes, command: Sequence[str], options: list[str]) -> None:
    watching = subprocess.Popen(
        [sys.executable, *named(command, "status", *options)],
        cwd=processes.folder, env=processes.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert watching.stdout is not None and watching.stderr is not None
    if options:
        assert watching.stdout.readline()
    watching.stdout.close()
    assert (watching.wait(60), watching.stderr.read()) == (0, b"")
    watching.stderr.close()


def test_a_terminal_gets_the_tables_of_rich(processes: Processes, command: Sequence[str]) -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, *named(command, "status")],
        cwd=processes.folder, env={**processes.environ, "TERM": "xterm", "COLUMNS": "100"}, stdout=theirs, check=False,
    )  # fmt: skip
    os.close(theirs)
    said = os.read(ours, 20_000).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "\x1b[" in said and "stores" in said and "─" in said


def test_the_exit_status_tells_health(processes: Processes, command: Sequence[str], tmp_path: Path) -> None:
    healthy = processes.python(*named(command, "health"))
    assert (healthy.ends(), healthy.output()) == (0, "healthy\n")
    for store in ("tasks.sqlite3", "shop.sqlite3"):
        (tmp_path / store).write_bytes(b"no database" * 1000)
    sick = processes.python(*named(command, "health", "--json"))
    assert sick.ends() == 1
    [reason] = json.loads(sick.output().splitlines()[-1])["reasons"]
    assert "cannot be read" in reason
