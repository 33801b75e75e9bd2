"""Servers that load an application and fork: what each worker acknowledges stays, whoever comes and goes beside it."""

from __future__ import annotations

import sys
import urllib.request
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import pytest
import services
from outside.processes import Processes, listens, wait_for
from outside.queue_users import ACKNOWLEDGED
from outside.site import QUEUE
from outside.test_queue_kills import in_order

from defer_local import DurableQueue

GUNICORN = (sys.executable, "-m", "gunicorn", "--preload", "-b", "{address}")
UWSGI = (str(Path(sys.prefix, "bin", "uwsgi")), "--home", sys.prefix, "--master", "--http-socket", "{address}")
SERVERS = {
    "gunicorn": (*GUNICORN, "-w", "3"),
    "gunicorn with threads": (*GUNICORN, "-w", "2", "--threads", "3"),
    "uwsgi": (*UWSGI, "--die-on-term", "-p", "3", "--module"),
    "uwsgi with threads": (*UWSGI, "--die-on-term", "-p", "2", "--threads", "3", "--module"),
}


@pytest.mark.parametrize("server", [name for name in SERVERS if "uwsgi" not in name or find_spec("pyuwsgi")])
def test_forked_workers_lose_nothing(processes: Processes, tmp_path: Path, server: str) -> None:
    port, numbers = services.free_port(), count(10)
    command = [part.format(address=f"127.0.0.1:{port}") for part in SERVERS[server]]
    process = processes.start(*command, "outside.preloaded:application")
    wait_for(lambda: listens(port), "the server", process)
    for turn in range(4):
        for _ in range(9):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{next(numbers)}", timeout=60) as answer:
                assert answer.status == 200
        assert processes.python("-m", "outside.queue_users", "short", str(1000 * (turn + 1)), "2").ends() == 0
    queue = DurableQueue(tmp_path / QUEUE)
    there = {int(task.name[1:]) for task in queue.tasks()}
    queue.close()
    told = {int(line) for line in (tmp_path / ACKNOWLEDGED).read_text().split()}
    assert there == told and len(told) == 2 + 4 * (9 + 2), process.output()
    process.stop()
    in_order(tmp_path / QUEUE)
    assert "Traceback" not in process.output(), process.output()
