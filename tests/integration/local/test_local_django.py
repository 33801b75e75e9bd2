"""`manage.py defer_local` beside `manage.py runserver`, in a project that configures nothing: DEBUG is on."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from integration.local import local_site
from integration.local.test_local_kills import PATIENCE, Processes, answers, wait_for

from defer_django.management.commands.defer_local import Command

DEFER = "import django; django.setup(); import django_site; django_site.defer_note(7)"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Processes]:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "django_site")
    processes = Processes(tmp_path)
    yield processes
    for process in processes.started:
        process.kill()
        process.wait(PATIENCE)


def test_it_delivers_to_the_development_server_and_stops_when_told(project: Processes, tmp_path: Path) -> None:
    assert project.manage("migrate").wait(PATIENCE) == 0
    project.manage("runserver", "--noreload", str(project.port))
    wait_for(lambda: answers(project.port), "the server")
    dispatcher = project.manage("defer_local", "--url", f"http://127.0.0.1:{project.port}")
    assert project.start("-c", DEFER).wait(PATIENCE) == 0, project.log()
    wait_for(lambda: local_site.ran(tmp_path) == [7], "the task")
    dispatcher.send_signal(signal.SIGTERM)
    assert dispatcher.wait(PATIENCE) == 0
    assert "defer-local: stopped." in project.log()
    assert "Traceback" not in project.log()


@pytest.mark.parametrize(
    ("said", "passed"),
    [
        ([], ["--url", "http://127.0.0.1:8000"]),
        (["--settings=site.settings", "--concurrency", "3"], ["--url", "http://127.0.0.1:8000", "--concurrency", "3"]),
        (["--url", "http://localhost:9000"], ["--url", "http://localhost:9000"]),
        (["--app", "site.wsgi:application"], ["--app", "site.wsgi:application"]),
    ],
)
def test_tasks_go_to_runserver_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, said: list[str], passed: list[str]
) -> None:
    got: list[Any] = []
    monkeypatch.setattr("defer_local.__main__.main", got.append)
    with pytest.raises(SystemExit):
        Command().run_from_argv(["manage.py", "defer_local", *said])
    assert got == [passed]


def test_its_exit_status_is_that_of_the_queue(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        Command().run_from_argv(["manage.py", "defer_local", "--app", "no_such_module:application"])
    assert ended.value.code == 1
    assert "no_such_module" in capfd.readouterr().err


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "defer_local.__main__", None)
    with pytest.raises(CommandError, match="Install defer-local"):
        call_command("defer_local")
