"""`defer-local list`, `stats` and `purge`: they read, and that is all."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from outside.processes import Processes, wait_for
from outside.site import QUEUE, note, sending

from defer_core import defer


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    """A queue with three tasks in two queues."""
    with sending(tmp_path):
        defer(note, 1, _small_task=True)
        defer(note, 2, _small_task=True, _queue="mail", _countdown=3600, _name="later")
        defer(note, 3, _small_task=True, _queue="mail", _name="sooner")
    return tmp_path / QUEUE


def run(folder: Path, *arguments: str, said: str = "", status: int = 0) -> str:
    """What `defer-local` prints."""
    command = [sys.executable, "-m", "defer_local", *arguments]
    done = subprocess.run(command, cwd=folder, input=said, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def content(file: Path) -> list[object]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute("SELECT * FROM tasks").fetchall()


def test_tasks_are_listed_with_what_they_call(queue: Path, tmp_path: Path) -> None:
    before = content(queue), sorted(queue.parent.iterdir()), hashlib.sha256(queue.read_bytes()).digest()
    heading, first, second, third = run(tmp_path, "list").splitlines()
    assert heading.split() == ["queue", "task", "calls", "due", "attempts", "running", "last"]
    assert re.match(r"default  \S+ +outside.site:note  \S+Z?\+00:00  0 +- +-$", first)
    assert second.split()[:3] == ["mail", "sooner", "outside.site:note"]
    assert third.split()[:2] == ["mail", "later"]
    assert (content(queue), sorted(queue.parent.iterdir()), hashlib.sha256(queue.read_bytes()).digest()) == before


def test_some_of_them(queue: Path, tmp_path: Path) -> None:
    assert len(run(tmp_path, "list", "mail").splitlines()) == 3
    assert len(run(tmp_path, "list", "--queue", "default").splitlines()) == 2
    assert len(run(tmp_path, "--file", str(queue), "list", "mail", "default").splitlines()) == 4
    assert run(tmp_path, "list", "--limit", "1").endswith("… and 2 more (--limit 0 shows all).\n")
    assert "more" not in run(tmp_path, "list", "--limit", "0")


def test_counts_by_queue(queue: Path, tmp_path: Path) -> None:
    heading, default, mail = (line.split() for line in run(tmp_path, "stats").splitlines())
    assert heading == ["queue", "state", "tasks", "due", "repeated", "running", "next"]
    assert default[:6] == ["default", "RUNNING", "1", "1", "0", "0"]
    assert mail[:6] == ["mail", "RUNNING", "2", "1", "0", "0"]


def test_as_json(queue: Path, tmp_path: Path) -> None:
    [task] = json.loads(run(tmp_path, "list", "default", "--json"))
    assert (task["calls"], task["attempts"], task["running"], task["last"]) == ("outside.site:note", 0, False, None)
    assert [each["tasks"] for each in json.loads(run(tmp_path, "stats", "--json"))] == [1, 2]


def test_an_attempt_is_seen_while_it_runs_and_after_it_failed(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(
        "import pathlib, time\n"
        "def application(environ, start):\n"
        "    while not pathlib.Path('go').exists(): time.sleep(0.05)\n"
        "    start('503 so', [])\n"
        "    return []\n"
    )
    with sending(tmp_path):
        defer(note, 1, _small_task=True, _retry_options={"min_backoff": 3600, "max_backoff": 3600})
    dispatcher = processes.python("-m", "defer_local", "--app", "failing")
    wait_for(lambda: json.loads(run(tmp_path, "list", "--json"))[0]["running"], "an attempt", dispatcher)
    (tmp_path / "go").touch()
    wait_for(lambda: json.loads(run(tmp_path, "list", "--json"))[0]["last"] == 503, "its end", dispatcher)
    assert json.loads(run(tmp_path, "stats", "--json"))[0]["repeated"] == 1


def test_a_queue_is_purged_after_a_question(queue: Path, tmp_path: Path) -> None:
    for said in ("", "n\n", "\n"):
        assert "Delete 2 tasks of mail" in run(tmp_path, "purge", "mail", said=said, status=1)
    assert len(content(queue)) == 3
    assert "Deleted 2 tasks of mail." in run(tmp_path, "purge", "mail", said="y\n")
    assert len(content(queue)) == 1
    assert "Deleted 1 tasks of default." in run(tmp_path, "purge", "default", "--yes")
    assert content(queue) == []
    assert "There are no tasks in" in run(tmp_path, "list")
    assert "Name the queue" in run(tmp_path, "purge", "--yes", status=1)
    assert "There is no queue 'mail'" in run(tmp_path, "purge", "mail", "--yes", status=1)


def test_a_queue_of_the_api_is_named_in_full_or_shortly(processes: Processes, tmp_path: Path) -> None:
    import services

    api, name = services.free_port(), "projects/local/locations/local/queues/mail"
    server = processes.serve(api + 1, "-m", "defer_local", "--grpc", str(api), "--queue", "mail")
    for each in ("mail", name):
        assert name in run(tmp_path, "stats", each), server.output()
        assert f"Deleted 0 tasks of {name}" in run(tmp_path, "purge", each, "--yes")


@pytest.mark.parametrize("action", ["list", "stats", "purge"])
def test_a_file_that_is_not_there_is_named_and_not_made(tmp_path: Path, action: str) -> None:
    said = run(tmp_path, action, "default", "--yes", status=1)
    assert f"There is no queue at {tmp_path / QUEUE}" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["text", "other tables", "folder", "empty"])
def test_what_is_no_queue_is_left_as_it_is(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "a #1?.sqlite3"
    if kind == "folder":
        file.mkdir()
    elif kind == "other tables":
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("CREATE TABLE tasks (id INTEGER)")
    else:
        file.write_text("no database, but a text\n" * 50 if kind == "text" else "")
    before = None if kind == "folder" else file.read_bytes()
    for action in ("list", "stats", "purge"):
        assert str(file) in run(tmp_path, action, "default", "--yes", "--file", str(file), status=1)
    assert list(tmp_path.iterdir()) == [file]
    assert before is None or file.read_bytes() == before


def test_names_of_strangers_cannot_break_a_line(tmp_path: Path) -> None:
    with sending(tmp_path) as transport:
        defer(note, 1, _small_task=True)
        with transport.queue.file.writing() as connection:
            connection.execute("UPDATE tasks SET name = ?, body = ?", ("a\nb\x1b[31m", b"\xff" * 100))
    assert r"a\nb\x1b[31m" in run(tmp_path, "list")


def test_serving_takes_no_names(tmp_path: Path) -> None:
    assert "takes no names" in run(tmp_path, "serve", "mail", "--url", "http://127.0.0.1:1", status=2)
