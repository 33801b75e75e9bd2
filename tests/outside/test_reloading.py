"""Servers that start anew at each change of code: no task is lost, and what runs after a change is the new code."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import services
from outside.processes import Process, Processes, wait_for

TASKS = 150
TASK = """
import os, time

def note(number):
    time.sleep(0.02)
    ledger = os.open("ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(ledger, f"{number} {VERSION}\\n".encode())
    os.close(ledger)

VERSION = 1
"""
FLASK = """
import flask, tasks
from defer_core import configure
from defer_gae_handler import wrap_wsgi_app

configure(transport="local", keys=["the site's own key"], sweep_interval=0)
app = flask.Flask(__name__)
app.wsgi_app = wrap_wsgi_app(app.wsgi_app)
"""
IN_PROCESS = """
import os
from defer_local import Dispatcher

if os.environ.get("WERKZEUG_RUN_MAIN") == "true":  # the reloader itself keeps its old code
    Dispatcher(target=app.wsgi_app).start()
"""
DJANGO = """
import tasks
from outside.supposed.shop_settings import *
from django.urls import include, path

DEBUG = True
DEFER = {"TRANSPORT": "local", "STORE": "sqlite", "KEYS": ["the site's own key"], "SWEEP_INTERVAL": 0}
ROOT_URLCONF = "site_urls"
"""
URLS = """
from django.urls import include, path

urlpatterns = [path("_ah/queue/", include("defer_gae_handler.django.urls"))]
"""
SEND = """
import sys, tasks
from defer_core import configure, defer

configure(transport="local", keys=["the site's own key"])
for number in range(int(sys.argv[1]), int(sys.argv[2])):
    defer(tasks.note, number, _small_task=True)
"""


def flask(folder: Path, port: int, more: str = "") -> tuple[str, ...]:
    (folder / "site_app.py").write_text(FLASK + more)
    return "-m", "flask", "--app", "site_app", "run", "--debug", "--port", str(port)


def flask_that_delivers(folder: Path, port: int) -> tuple[str, ...]:
    return flask(folder, port, IN_PROCESS)


def django(folder: Path, port: int) -> tuple[str, ...]:
    (folder / "site_settings.py").write_text(DJANGO)
    (folder / "site_urls.py").write_text(URLS)
    return "-m", "django", "runserver", str(port), "--settings", "site_settings", "--pythonpath", "."


def change(folder: Path, version: int) -> None:
    (folder / "tasks.py").write_text(TASK.replace("VERSION = 1", f"VERSION = {version}"))


def ledger(folder: Path) -> list[tuple[int, int]]:
    path = folder / "ledger"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(number), int(version)) for number, version in map(str.split, lines)]


def waiting(folder: Path) -> int:
    command = [sys.executable, "-m", "defer_local", "list", "--json", "--limit", "0"]
    return len(json.loads(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout))


@pytest.mark.parametrize("server", [flask, django, flask_that_delivers])
def test_no_task_is_lost(processes: Processes, tmp_path: Path, server: Callable[[Path, int], tuple[str, ...]]) -> None:
    port = services.free_port()
    change(tmp_path, 1)
    (tmp_path / "send.py").write_text(SEND)
    processes.environ["PYTHONPATH"] += f":{tmp_path}"
    site = processes.serve(port, *server(tmp_path, port))
    told: list[Process] = [site]
    if server is not flask_that_delivers:
        told.append(processes.python("-m", "defer_local", "--url", f"http://127.0.0.1:{port}"))
    for version in (2, 3):
        first = TASKS * (version - 2)
        assert processes.python("send.py", str(first), str(first + TASKS)).ends() == 0
        wait_for(lambda first=first: len(ledger(tmp_path)) > first + 20, "some of them", *told)  # type: ignore[misc]
        change(tmp_path, version)
    wait_for(lambda: not waiting(tmp_path), "all of them", *told)
    assert {number for number, _ in ledger(tmp_path)} == set(range(2 * TASKS))
    assert len(ledger(tmp_path)) <= 2 * TASKS + 2 * 2 * 8, told[-1].output()  # what was under way is repeated
    for number in itertools.count(2 * TASKS):  # until the server has noticed the change
        assert processes.python("send.py", str(number), str(number + 1)).ends() == 0
        wait_for(lambda number=number: ledger(tmp_path)[-1][0] == number, "one more", *told)  # type: ignore[misc]
        if ledger(tmp_path)[-1][1] == 3:
            break
    assert "Traceback" not in told[-1].output()
