"""Processes as a user starts them: in a folder of their own, each with its log."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

TESTS = str(Path(__file__).parents[1])
PATIENCE = 60.0
"""Seconds that anything may take to come about; a machine that is busy is slow."""


class Process:
    """One process, and what it printed."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.popen = popen
        self._log = log

    def output(self) -> str:
        """All that it has printed so far, on both of its streams."""
        return self._log.read_text(errors="replace")

    def ends(self, seconds: float = PATIENCE) -> int:
        """Its exit status, once it has ended by itself."""
        return self.popen.wait(seconds)

    def kill(self) -> None:
        """`kill -9` for it and the processes that it started, and wait for its end."""
        with suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait(PATIENCE)

    def stop(self) -> None:
        """SIGTERM, and `kill -9` for what is left after ten seconds, or has been left behind."""
        self.popen.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(10)
        self.kill()


class Processes:
    """Starts processes in `folder`, without the settings of the tests' own environment; the block ends them."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DEFER_", "DJANGO_"))}
        paths = os.pathsep.join([TESTS, *filter(None, [os.environ.get("PYTHONPATH")])])
        self.environ = {**kept, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": paths, **environ}
        self.started: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        for process in reversed(self.started):
            process.stop()

    def start(self, *command: str | Path, **environ: str) -> Process:
        """Start a program; its log is `NUMBER.log` in the folder."""
        log = self.folder / f"{len(self.started)}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                [str(part) for part in command],
                cwd=self.folder,
                env={**self.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(Process(popen, log))
        return self.started[-1]

    def python(self, *arguments: str | Path, **environ: str) -> Process:
        """Start this Python: `python("-m", "defer_local", …)`."""
        return self.start(sys.executable, *arguments, **environ)

    def serve(self, port: int, *command: str | Path, **environ: str) -> Process:
        """Start a program, or (arguments that begin with -m) this Python, and wait until it listens on a port of
        127.0.0.1."""
        process = (self.python if command[0] == "-m" else self.start)(*command, **environ)
        wait_for(lambda: listens(port) or process.popen.poll() is not None, f"port {port}", process)
        assert process.popen.poll() is None, process.output()
        return process


def listens(port: int) -> bool:
    """Whether something listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], bool], what: str, *told: Process, seconds: float = PATIENCE) -> None:
    """Wait until `condition()` holds; else fail with what the processes `told` have printed."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            outputs = "\n".join(f"--- {process.popen.args!r}\n{process.output()[-4000:]}" for process in told)
            raise AssertionError(f"{what} did not come about in {seconds:g} s\n{outputs}")
        time.sleep(0.02)
