"""`python -m defer_core` in projects that call `configure()`: processes in a folder of the project's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = """
from defer_core import PermanentTaskFailure, configure, defer, execute, Delivery

def set_up():
    configure(transport="memory", store="sqlite", store_options={"file": "tasks.sqlite3"}, queues=["default"])

def application(environ, start_response):
    raise AssertionError("it was called")

def fail():
    raise PermanentTaskFailure("order 4711")

def bury():
    set_up()
    from defer_core.config import current
    defer(fail)
    [task] = current().the_transport.queued()
    execute(task.message.body, Delivery(retry_count=0))
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project with a dead letter, that configures itself in `shop.main`, and one that is broken."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/__init__.py").touch()
    (tmp_path / "shop/tasks.py").write_text(PROJECT)
    (tmp_path / "shop/main.py").write_text("from shop.tasks import application, set_up\nset_up()\n")
    (tmp_path / "shop/broken.py").write_text("import no_such_library\n")
    assert run(tmp_path, "-c", "import shop.tasks; shop.tasks.bury()") == (0, "", "")
    return tmp_path


def run(folder: Path, *arguments: str) -> tuple[int, str, str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO", "DEFER"))}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environ, check=False)
    return done.returncode, done.stdout, done.stderr if "-c" not in arguments or done.returncode else ""


def defer_core(folder: Path, *arguments: str) -> tuple[int, str, str]:
    return run(folder, "-m", "defer_core", *arguments)


@pytest.mark.parametrize("app", ["shop.main", "shop.tasks:set_up", "shop.main:application"])
def test_the_app_is_imported_first(shop: Path, app: str) -> None:
    status, said, wrong = defer_core(shop, "--app", app, "dead", "list")
    assert (status, said.count("order 4711"), wrong) == (0, 1, "")
    status, said, wrong = defer_core(shop, "--app", app, "sweep")
    assert (status, "dead 1" in said, wrong) == (0, True, "")
    status, said, wrong = defer_core(shop, "--app", app, "queues", "show")
    assert (status, wrong.count("\n"), "Only Cloud Tasks" in wrong) == (1, 1, True)


@pytest.mark.parametrize("command", [["sweep"], ["dead", "list"], ["queues", "show"]], ids=str)
def test_without_it_the_error_names_it(shop: Path, command: list[str]) -> None:
    for app in ([], ["--app", "shop.tasks"]):
        status, said, wrong = defer_core(shop, *app, *command)
        assert (status, said, wrong.count("\n")) == (1, "", 1)
        assert f"--app shop.main {command[0]}" in wrong


@pytest.mark.parametrize(
    ("app", "says"),
    [
        ("shop.mian", "No module named 'shop.mian'"),
        ("shopp", "No module named 'shopp'"),
        ("shop.main:applicatoin", "applicatoin"),
        ("shop.broken", "no_such_library"),
        (":x", "Give it as module"),
    ],
)
def test_an_app_that_is_not_there_is_one_line(shop: Path, app: str, says: str) -> None:
    status, said, wrong = defer_core(shop, "--app", app, "sweep")
    assert (status, said, wrong.count("\n")) == (1, "", 1)
    assert says in wrong and repr(app) in wrong
