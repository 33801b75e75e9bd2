"""`djangae.sandbox`: what manage.py of a site starts beside itself, here the local queue; it needs no emulator.

manage.py calls this before Django's settings are read, so Django is not imported.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

DEFAULT_PROJECT_ID = "example"
DEFAULT_GAE_APPLICATION = f"e~{DEFAULT_PROJECT_ID}"
DEFAULT_DATASTORE_PORT = 10901
DEFAULT_TASKS_PORT = 10908
DEFAULT_STORAGE_PORT = 10911
SERVICE_HOST = "127.0.0.1"
DEFAULT_TARGET_PORT = 8000
"""The default port of `runserver`."""
_REACHED_AT = {"0.0.0.0": SERVICE_HOST, "0": SERVICE_HOST, "[::]": "[::1]"}
"""The address that reaches a server on all addresses."""
ALL_EMULATORS = ("datastore", "tasks", "storage")
QUEUE_FILE = ".defer/queue.sqlite3"
STOPPING = 10.0
"""Seconds that the local queue gets to stop."""

log = logging.getLogger("djangae.sandbox")
_active: dict[str, subprocess.Popen[bytes]] = {}


def start_emulators(
    persist_data: bool = False,
    project_id: str = DEFAULT_PROJECT_ID,
    emulators: Sequence[str] = ALL_EMULATORS,
    datastore_port: int = DEFAULT_DATASTORE_PORT,
    datastore_dir: str | None = None,
    tasks_port: int = DEFAULT_TASKS_PORT,
    task_target_port: int | None = None,
    task_queue_yaml: str | None = None,
    autodetect_task_port: bool = True,
    storage_port: int = DEFAULT_STORAGE_PORT,
    storage_dir: str | None = None,
) -> None:
    """Start the local queue beside `runserver`; it ends with this process. Other commands need no queue.

    It posts tasks to the address that `runserver` serves, or to `task_target_port` of this machine. The keywords are
    Djangae's. If the site uses Datastore or Cloud Storage, start their emulators yourself, and set
    DATASTORE_EMULATOR_HOST and STORAGE_EMULATOR_HOST. Tests need no queue (`djangae.test`).
    """
    if os.environ.get("RUN_MAIN") == "true":  # the child of runserver's reloader
        return
    enable_test_environment_variables(project_id)
    if "datastore" in emulators and "DATASTORE_EMULATOR_HOST" not in os.environ:
        log.info("A site on Datastore needs its emulator: start it and set DATASTORE_EMULATOR_HOST.")
    if "tasks" in emulators:  # one queue for all commands of the site, in any current directory
        os.environ.setdefault("DEFER_LOCAL_FILE", str(Path(sys.argv[0]).absolute().parent / QUEUE_FILE))
    if "tasks" in emulators and "tasks" not in _active and sys.argv[1:2] == ["runserver"]:
        served = served_at(sys.argv[2:]) if autodetect_task_port else f"{SERVICE_HOST}:{DEFAULT_TARGET_PORT}"
        _start_queue(f"{SERVICE_HOST}:{task_target_port}" if task_target_port else served)


def stop_emulators(emulators: Sequence[str] | None = None) -> None:
    """Stop the processes that `start_emulators` has started."""
    for name in emulators or ALL_EMULATORS:
        process = _active.pop(name, None)
        if process is not None:
            process.terminate()
            try:
                process.wait(STOPPING)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def enable_test_environment_variables(project_id: str = DEFAULT_PROJECT_ID) -> None:
    """Set the variables of App Engine that name the project."""
    os.environ.setdefault("GOOGLE_CLOUD_PROJECT", project_id)
    os.environ.setdefault("GAE_APPLICATION", f"e~{project_id}")


def served_at(arguments: Sequence[str]) -> str:
    """Return `host:port` of `runserver` on this machine, by its arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("address", nargs="?", default="")
    parser.add_argument("-6", "--ipv6", action="store_true")
    for option in ("--settings", "--pythonpath", "--verbosity", "-v"):  # whose values are not the address
        parser.add_argument(option)
    told = parser.parse_known_args(arguments)[0]
    host, _, port = told.address.rpartition(":")
    host = _REACHED_AT.get(host, host) or ("[::1]" if told.ipv6 else SERVICE_HOST)
    return f"{host}:{port if port.isdigit() else DEFAULT_TARGET_PORT}"


def _start_queue(address: str) -> None:
    if find_spec("defer_local") is None:
        log.warning(
            "Tasks are not delivered, because the local queue is not installed: pip install 'defer-djangae[local]'."
        )
        return
    command = [sys.executable, "-m", "defer_local", "--url", f"http://{address}", "--parent", str(os.getpid())]
    _active["tasks"] = subprocess.Popen(command)
