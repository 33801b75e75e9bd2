"""A Djangae site, unedited, on the meta-package: its own tests, its migrations and its checks."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
import services

import defer_djangae

SITE = Path(__file__).parent / "djangae_site"


@pytest.fixture
def site(tmp_path):
    """A copy of the site."""
    return shutil.copytree(SITE, tmp_path / "site", ignore=shutil.ignore_patterns("__pycache__", ".cache"))


def environment(**more):
    """The variables of a process of the site: nothing of this one's Django and configuration."""
    ours = ("DJANGO_", "DEFER_", "GAE_", "GOOGLE_")
    return {**{key: value for key, value in os.environ.items() if not key.startswith(ours)}, **more}


@pytest.fixture
def manage(site):
    """Runs the site's manage.py and returns what it said."""
    assert defer_djangae.live() == "shim"

    def run(*arguments, **environ):
        done = subprocess.run(
            [sys.executable, "-W", "error", "manage.py", *arguments],
            cwd=site,
            env=environment(**environ),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def passed(said):
    """How many tests the site's run says have passed."""
    (count,) = re.findall(r"^Ran (\d+) tests? in ", said, re.MULTILINE)
    assert re.search(r"^OK$", said, re.MULTILINE), said
    return int(count)


def test_the_sites_own_tests_pass_on_sqlite(manage):
    assert passed(manage("test")) >= 38


def test_the_sites_own_tests_pass_on_postgresql(manage):
    database = services.postgres_settings("default")
    database = {key: value for key, value in database.items() if isinstance(value, str | int)}
    database["TEST"] = {"NAME": f"museum_{os.getpid()}"}
    assert passed(manage("test", "--noinput", MUSEUM_DATABASE=json.dumps({"default": database}))) >= 38


@pytest.mark.gcloudc
@pytest.mark.skipif(find_spec("gcloudc") is None, reason="gcloudc is not installed (it needs Django < 6)")
@pytest.mark.parametrize(
    ("emulator", "engine"),
    [
        (services.datastore_emulator, "gcloudc.db.backends.datastore"),
        (lambda: services.firestore_emulator("firestore-site"), "firestore_engine"),
    ],
    ids=["datastore", "firestore"],
)
def test_the_sites_own_tests_pass_on_datastore(manage, emulator, engine):
    database = {
        "ENGINE": engine,
        "PROJECT": services.PROJECT,
        "NAMESPACE": f"museum{os.getpid()}",
        "INDEXES_FILE": "djangaeidx.yaml",
        "OPTIONS": {"count_mode": "emulated"},
    }
    said = manage(
        "test",
        MUSEUM_DATABASE=json.dumps({"default": database}),
        DATASTORE_EMULATOR_HOST=emulator(),
        DATASTORE_PROJECT_ID=services.PROJECT,
        PYTHONPATH=str(Path(services.__file__).parent),
    )
    assert passed(said) >= 38


def test_the_site_migrates_once_and_its_models_need_no_migration(manage):
    said = manage("migrate")
    assert "defer_django" in said
    assert "defer_iteration" in said
    assert "No changes detected" in manage("makemigrations", "--check")


def test_the_site_has_no_error_in_its_checks(manage):
    assert "ERRORS" not in manage("check")


@contextmanager
def serving(site, address, *options, folder=None):
    """`manage.py runserver` for the length of a `with` block, with the local queue that it starts."""
    command = [sys.executable, site / "manage.py" if folder else "manage.py", "runserver", *options, address]
    with (site / "server.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder or site, env=environment(), stdout=log, stderr=log)
        try:
            yield server
        finally:
            server.send_signal(signal.SIGINT)
            try:
                server.wait(30)
            finally:
                server.kill()


def notes(site):
    with closing(sqlite3.connect(site / "museum.sqlite3")) as database:
        return [text for (text,) in database.execute("SELECT text FROM museum_note")]


def seen(condition):
    """What a condition says, as soon as that is true; at last what it is."""
    until = time.monotonic() + 30
    while not (found := condition()) and time.monotonic() < until:
        time.sleep(0.1)
    return found


def dispatchers(port):
    """The arguments of the dispatchers that deliver to a port."""
    listed = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [each for each in listed.splitlines() if "defer_local --url" in each and f":{port}" in each]


def test_on_a_laptop_runserver_has_a_queue_beside_it_and_nothing_is_configured(site, manage):
    manage("migrate")
    with serving(site, str(services.free_port()), "--noreload"):
        call = (
            "from djangae.tasks.deferred import defer; from museum.background import note; defer(note, 'from a laptop')"
        )
        manage("shell", "-c", call)
        assert seen(lambda: notes(site)) == ["from a laptop"], (site / "server.log").read_text()
    assert "defer-local: stopped." in (site / "server.log").read_text()


@pytest.mark.parametrize("host", ["", "0.0.0.0:", "[::1]:", "localhost:"])
def test_the_queue_posts_to_where_runserver_serves(site, manage, host):
    manage("migrate")
    port = services.free_port()
    with serving(site, f"{host}{port}", "--noreload"):
        assert seen(lambda: dispatchers(port))
        manage("shell", "-c", "from djangae.deferred import defer; from museum.background import note; defer(note, 1)")
        assert seen(lambda: notes(site)) == ["1"], (site / "server.log").read_text()


def test_from_another_folder_it_is_the_sites_queue(site, manage, tmp_path):
    manage("migrate")
    with serving(site, str(services.free_port()), "--noreload", "--settings", "site_settings", folder=tmp_path):
        manage("shell", "-c", "from djangae.deferred import defer; from museum.background import note; defer(note, 1)")
        assert seen(lambda: notes(site)) == ["1"], (site / "server.log").read_text()
    assert not (tmp_path / ".defer").exists()


@pytest.mark.parametrize("options", [(), ("--noreload",)], ids=["reloading", "alone"])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_the_queue_ends_with_runserver_however_that_ends(site, options, how):
    port = services.free_port()
    with serving(site, str(port), *options) as server:
        assert seen(lambda: "Starting development server" in (site / "server.log").read_text())
        assert len(dispatchers(port)) == 1  # of the reloader's two processes one has it
        server.send_signal(how)
        server.wait(30)
        assert seen(lambda: not dispatchers(port)), dispatchers(port)


def test_a_second_server_on_a_port_in_use_leaves_no_queue_behind(site):
    port = services.free_port()
    with serving(site, str(port), "--noreload"):
        assert seen(lambda: len(dispatchers(port)) == 1)
        assert seen(lambda: "Starting development server" in (site / "server.log").read_text())
        second = [sys.executable, "manage.py", "runserver", "--noreload", str(port)]
        done = subprocess.run(second, cwd=site, env=environment(), capture_output=True, text=True, timeout=60)
        assert "already in use" in done.stderr
        assert seen(lambda: len(dispatchers(port)) == 1)


@pytest.mark.parametrize("command", ["shell", "check"])
def test_other_commands_start_no_queue(site, manage, command):
    children = "import os; os.system(f'ps -o args= --ppid {os.getpid()}')"
    said = manage("shell", "-c", children) if command == "shell" else manage("check")
    assert "defer_local" not in said
    assert not (site / ".defer").exists()
