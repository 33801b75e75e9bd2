"""`djangae.sandbox`: what a site's manage.py starts beside itself. Here that is the local queue; it needs no emulator.

manage.py calls this before Django's settings are read, so nothing of Django is imported.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec

DEFAULT_PROJECT_ID = "example"
DEFAULT_GAE_APPLICATION = f"e~{DEFAULT_PROJECT_ID}"
DEFAULT_DATASTORE_PORT = 10901
DEFAULT_TASKS_PORT = 10908
DEFAULT_STORAGE_PORT = 10911
SERVICE_HOST = "127.0.0.1"
ALL_EMULATORS = ("datastore", "tasks", "storage")
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
    """Start the local queue, which posts tasks to this machine's `task_target_port` (that of `runserver` by default).

    Takes Djangae's keywords. Datastore and Cloud Storage emulators are not ours to start: start them, and set
    DATASTORE_EMULATOR_HOST and STORAGE_EMULATOR_HOST, where the site uses them. Tests need no queue (`djangae.test`).
    """
    if os.environ.get("RUN_MAIN") == "true":  # the child of runserver's reloader
        return
    enable_test_environment_variables(project_id)
    if "datastore" in emulators and "DATASTORE_EMULATOR_HOST" not in os.environ:
        log.info("A site on Datastore needs its emulator: start it, and set DATASTORE_EMULATOR_HOST.")
    if "tasks" in emulators and "tasks" not in _active and "test" not in sys.argv[1:2]:
        _start_queue(task_target_port or target_port(sys.argv, autodetect=autodetect_task_port))


def stop_emulators(emulators: Sequence[str] | None = None) -> None:
    """Stop what `start_emulators` has started."""
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
    """The variables of App Engine that say which project this is."""
    os.environ.setdefault("GOOGLE_CLOUD_PROJECT", project_id)
    os.environ.setdefault("GAE_APPLICATION", f"e~{project_id}")


def target_port(argv: Sequence[str], *, autodetect: bool = True) -> int:
    """The port of `manage.py runserver [host:]port`, 8000 where it does not say."""
    if autodetect and "runserver" in argv[1:2]:
        for each in argv[2:]:
            port = each.rpartition(":")[2]
            if not each.startswith("-") and port.isdigit():
                return int(port)
    return 8000


def _start_queue(port: int) -> None:
    if find_spec("defer_local") is None:
        log.warning("The local queue is not installed, so nothing delivers tasks: pip install 'defer-djangae[local]'.")
        return
    command = [sys.executable, "-m", "defer_local", "--url", f"http://{SERVICE_HOST}:{port}"]
    _active["tasks"] = subprocess.Popen(command)
