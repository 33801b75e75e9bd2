"""The processes of the demonstration: the shop's web server, and the dispatcher of the local queue."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

PROJECT = Path(__file__).resolve().parent.parent
START_SECONDS = 20.0
THREADS = 10
"""Requests at a time; the eight shards take one each."""
SERVERS = {
    "waitress": "-m waitress --listen=127.0.0.1:{port} --threads={threads} shop.wsgi:application",
    "gunicorn": "-m gunicorn --bind 127.0.0.1:{port} --threads {threads} shop.wsgi",
    "gunicorn-sync": "-m gunicorn --bind 127.0.0.1:{port} --workers 2 shop.wsgi",
    "runserver": "manage.py runserver {port}",
}
"""How people start the shop."""
LEAVE_NONE = 'while kill -s 0 "$1" && kill -s 0 -- "-$2"; do sleep 1; done; kill -s KILL -- "-$2"'
"""A shell script: a process group ends with the demonstration, however that ends."""


def free_port() -> int:
    """A TCP port of the loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int, seconds: float = START_SECONDS) -> bool:
    """Wait until something listens on a port of the loopback. Returns whether it does."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.05)
    return False


class Process:
    """A command (of Python, or another program) that runs in the shop's folder, with its output in a file."""

    def __init__(self, name: str, command: list[str], data: Path, program: str = sys.executable) -> None:
        self.log = data / f"{name}.log"
        self.command = [program, *command]
        self.start()

    def start(self) -> None:
        """Start it, or start it again."""
        with self.log.open("ab") as output:
            self.running = subprocess.Popen(
                self.command, cwd=PROJECT, env=os.environ, stdout=output, stderr=output, start_new_session=True
            )
        ids = [str(os.getpid()), str(self.running.pid)]
        subprocess.Popen(["sh", "-c", LEAVE_NONE, "sh", *ids], start_new_session=True, stderr=subprocess.DEVNULL)

    def kill(self) -> int:
        """`kill -9` for it and the workers that it has, and its id."""
        os.killpg(self.running.pid, signal.SIGKILL)
        self.running.wait()
        return self.running.pid

    def stop(self) -> None:
        """Let it end by itself, or kill it."""
        self.running.terminate()
        try:
            self.running.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()

    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")


class Server(Process):
    """The shop, served by one of SERVERS."""

    def __init__(self, data: Path, kind: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__("server", SERVERS[kind].format(port=self.port, threads=THREADS).split(), data)

    def start(self) -> None:
        """Start it, and wait until it answers. Raises RuntimeError with its output."""
        super().start()
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self.running.poll() is None:
            try:
                urlopen(self.url, timeout=2).close()
                return
            except (URLError, OSError):
                time.sleep(0.05)
        raise RuntimeError(f"The server does not answer on {self.url}:\n{self.output()}")


class Dispatcher(Process):
    """`defer-local`: takes tasks out of the queue's file, and posts them to the shop."""

    def __init__(self, url: str, data: Path) -> None:
        command = ["-m", "defer_local", "--url", url, "--file", str(data / "queue.sqlite3")]
        api = os.environ.get("CLOUD_TASKS_EMULATOR_HOST")
        if api is not None:
            command += ["--grpc", api.rpartition(":")[2]]
        super().__init__("dispatcher", command, data)
