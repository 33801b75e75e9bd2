"""Real processes: a WSGI server, the command `defer-local`, and `kill -9` for either of them."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import services

from defer_core import config, defer, defer_many
from defer_local import DurableQueue
from defer_local.queued import QueuedTask

HERE = Path(__file__).parent
PATIENCE = 60.0
TASKS = 120


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module of the site, set up in this process, which only sends."""
    monkeypatch.delenv("LOCAL_SITE", raising=False)
    spec = importlib.util.spec_from_file_location("local_site", HERE / "local_site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "local_site", module)
    spec.loader.exec_module(module)
    transport = module.setup(tmp_path)
    yield module
    transport.close()
    config.current().the_store.close()  # type: ignore[union-attr]
    config.reset()
    monkeypatch.delenv("LOCAL_SITE", raising=False)


class Processes:
    """Starts processes in one folder, and leaves none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []
        self.port = free_port()

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        paths = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
        environ = {**os.environ, "LOCAL_SITE": str(self.folder), "PYTHONPATH": paths}
        log = (self.folder / "log").open("ab")
        process = subprocess.Popen([sys.executable, *command], cwd=self.folder, env=environ, stdout=log, stderr=log)
        log.close()
        self.started.append(process)
        return process

    def server(self) -> subprocess.Popen[bytes]:
        listen = f"127.0.0.1:{self.port}"
        process = self.start("-m", "waitress", f"--listen={listen}", "--threads=8", "local_site:application")
        wait_for(lambda: answers(self.port), "the server")
        return process

    def dispatcher(self, *where: str) -> subprocess.Popen[bytes]:
        where = where or ("--url", f"http://127.0.0.1:{self.port}")
        return self.start("-m", "defer_local", *where, "--file", str(self.folder / "queue.sqlite3"))

    def manage(self, *command: str) -> subprocess.Popen[bytes]:
        return self.start("-m", "django", *command, "--settings", "django_site")

    def log(self) -> str:
        return (self.folder / "log").read_text()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(tmp_path)
    yield processes
    for process in processes.started:
        process.kill()
        process.wait(PATIENCE)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, f"{what} did not come about in {PATIENCE:g} s"
        time.sleep(0.02)


def test_a_killed_server_loses_nothing(site: ModuleType, processes: Processes, tmp_path: Path) -> None:
    defer_many(site.note, [(number, 0.02) for number in range(TASKS)])
    server, dispatcher = processes.server(), processes.dispatcher()
    wait_for(lambda: len(site.ran(tmp_path)) > TASKS // 4, "a quarter of the tasks")
    server.kill()
    server.wait(PATIENCE)
    assert len(set(site.ran(tmp_path))) < TASKS
    processes.server()
    wait_for(lambda: set(site.ran(tmp_path)) == set(range(TASKS)), "every task")
    assert dispatcher.poll() is None


def test_a_killed_dispatcher_loses_nothing(site: ModuleType, processes: Processes, tmp_path: Path) -> None:
    defer_many(site.note, [(number, 0.02) for number in range(TASKS)])
    processes.server()
    for part in (4, 2):
        dispatcher = processes.dispatcher()
        wait_for(lambda: len(set(site.ran(tmp_path))) > TASKS // part, "a part of the tasks")  # noqa: B023
        dispatcher.kill()
        dispatcher.wait(PATIENCE)
        assert len(set(site.ran(tmp_path))) < TASKS
    processes.dispatcher()
    wait_for(lambda: set(site.ran(tmp_path)) == set(range(TASKS)), "every task")
    twice = len(site.ran(tmp_path)) - TASKS
    assert twice <= 2 * 8, "no more than what was under way at the two kills"


def test_a_living_dispatcher_takes_over_from_a_killed_one(
    site: ModuleType, processes: Processes, tmp_path: Path
) -> None:
    processes.server()
    first = processes.dispatcher()
    defer(site.note, 1, 3600.0)
    wait_for(lambda: [task.owner is not None for task in queued(tmp_path)] == [True], "the first attempt")
    [before] = queued(tmp_path)
    processes.dispatcher()
    wait_for(lambda: processes.log().count("Ctrl-C stops") == 2, "the second dispatcher")
    first.kill()
    first.wait(PATIENCE)
    wait_for(lambda: queued(tmp_path)[0].owner not in (None, before.owner), "the take-over")
    assert queued(tmp_path)[0].attempts == 2


def queued(folder: Path) -> list[QueuedTask]:
    queue = DurableQueue(folder / "queue.sqlite3")
    tasks = queue.tasks()
    queue.close()
    return tasks


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_stops_cleanly(site: ModuleType, processes: Processes, tmp_path: Path, number: int) -> None:
    dispatcher = processes.dispatcher("--app", "local_site:application")
    wait_for(lambda: "Ctrl-C stops" in processes.log(), "the banner")
    defer(site.note, 7)
    wait_for(lambda: site.ran(tmp_path) == [7], "the task")
    dispatcher.send_signal(number)
    assert dispatcher.wait(PATIENCE) == 0
    assert "defer-local: stopped." in processes.log()
    assert "Traceback" not in processes.log()


def test_a_failure_is_logged_and_a_mistake_is_an_exit_status(processes: Processes, site: ModuleType) -> None:
    processes.server()
    defer(site.note, "not a number", "of seconds")
    processes.dispatcher()
    wait_for(lambda: "attempt 2: 500" in processes.log(), "the second failure")
    wrong = processes.dispatcher("--app", "no_such_site:application")
    assert wrong.wait(PATIENCE) == 1
    assert "no_such_site" in processes.log()


def test_the_command_serves_the_cloud_tasks_api(processes: Processes, site: ModuleType, tmp_path: Path) -> None:
    grpc = services.library("grpc")
    port = free_port()
    stopping = processes.dispatcher("--app", "local_site:application", "--grpc", str(port))
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    grpc.channel_ready_future(channel).result(PATIENCE)
    channel.close()
    defer(site.note, 7)
    wait_for(lambda: site.ran(tmp_path) == [7], "the task")
    stopping.send_signal(signal.SIGTERM)
    assert stopping.wait(PATIENCE) == 0
    busy = processes.start("-m", "http.server", "--bind", "127.0.0.1", str(port))
    wait_for(lambda: answers(port), "the other server")
    refused = processes.dispatcher("--app", "local_site:application", "--grpc", str(port))
    assert refused.wait(PATIENCE) == 1
    assert "cannot listen on 127.0.0.1" in processes.log()
    busy.kill()
