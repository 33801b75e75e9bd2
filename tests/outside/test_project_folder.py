"""A Django project's queue is the project's, from wherever its commands are started; git does not see it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import services
from outside.processes import Process, Processes, listens, wait_for

NOTE = "def note(number):\n    with open(LEDGER, 'a') as file:\n        file.write(f'{number}\\n')\n"
DEFER = "from defer_core import defer; import tasks; defer(tasks.note, {number})"


@pytest.fixture
def project(processes: Processes, tmp_path: Path) -> Path:
    """A project as `django-admin startproject` makes it, and defer_django in it."""
    folder = tmp_path / "project"
    folder.mkdir()
    subprocess.run([sys.executable, "-m", "django", "startproject", "site_of_mine", folder], check=True, cwd=tmp_path)
    settings = folder / "site_of_mine" / "settings.py"
    settings.write_text(settings.read_text() + "\nINSTALLED_APPS += ['defer_django']\n")
    urls = "from django.urls import include, path\nurlpatterns = [path('', include('defer_gae_handler.django.urls'))]\n"
    (folder / "site_of_mine" / "urls.py").write_text(urls)
    (folder / "tasks.py").write_text(f"LEDGER = {str(tmp_path / 'ledger')!r}\n{NOTE}")
    subprocess.run(["git", "init", "-q", folder], check=True)
    assert manage(processes, tmp_path, "migrate").ends() == 0
    return folder


def manage(processes: Processes, folder: Path, *arguments: str, **environ: str) -> Process:
    processes.folder = folder
    path = next(each for each in (folder, *folder.parents) for each in each.glob("**/manage.py"))
    return processes.python(path, *arguments, **environ)


def test_its_file_is_in_base_dir(processes: Processes, project: Path, tmp_path: Path) -> None:
    elsewhere, inside = tmp_path / "elsewhere", project / "site_of_mine"
    elsewhere.mkdir()
    ledger, port = tmp_path / "ledger", services.free_port()
    server = manage(processes, tmp_path, "runserver", "--noreload", str(port))
    wait_for(lambda: listens(port), "the server", server)
    dispatcher = manage(processes, inside, "defer_local", "--url", f"http://127.0.0.1:{port}")
    for number, folder in enumerate((project, inside, tmp_path)):
        sender = manage(processes, folder, "shell", "-c", DEFER.format(number=number))
        assert sender.ends() == 0, sender.output()
    wait_for(lambda: ledger.exists() and len(ledger.read_text().split()) == 3, "every task", server, dispatcher)
    assert {path.parent for path in tmp_path.rglob("queue.sqlite3")} == {project / ".defer"}
    status = subprocess.run(["git", "status", "--short"], cwd=project, check=True, capture_output=True, text=True)
    assert ".defer" not in status.stdout and "manage.py" in status.stdout


def test_what_is_said_comes_first(processes: Processes, project: Path, tmp_path: Path) -> None:
    sender = manage(processes, tmp_path, "shell", "-c", DEFER.format(number=1), DEFER_LOCAL_FILE="named/queue")
    assert sender.ends() == 0, sender.output()
    assert (tmp_path / "named" / "queue").exists() and not (project / ".defer").exists()
    assert sender.output().count("No dispatcher delivers") == 1
    assert str(tmp_path / "named" / "queue") in sender.output()


def test_the_store_is_the_projects_too(processes: Processes, project: Path, tmp_path: Path) -> None:
    settings = project / "site_of_mine" / "settings.py"
    settings.write_text(settings.read_text() + "\nDEFER = {'TRANSPORT': 'local', 'STORE': 'sqlite'}\n")
    sender = manage(processes, tmp_path, "shell", "-c", DEFER.format(number=1))
    assert sender.ends() == 0, sender.output()
    assert {path.parent for path in tmp_path.rglob("store.sqlite3")} == {project / ".defer"}
