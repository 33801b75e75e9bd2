"""Promises 1, 2 and 6: a process is killed at each point between a commit and the end of its tasks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import services
from integration.crashes import kill_site

from defer_core.record import new_id

pytestmark = pytest.mark.crashes
TESTS = Path(__file__).resolve().parents[2]


@pytest.fixture
def environ(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """What the processes of one site have in common."""
    common = {**os.environ, "DEFER_LOCAL_FILE": str(tmp_path / "queue.sqlite3"), "PYTHONPATH": f"{TESTS}"}
    common["PYTHONPATH"] += os.pathsep + os.environ.get("PYTHONPATH", "")
    if request.node.callspec.params["store"] == "ndb":
        host = request.getfixturevalue("firestore")
        project = {
            "DATASTORE_EMULATOR_HOST": host,
            "DATASTORE_PROJECT_ID": services.PROJECT,
            "KILL_NAMESPACE": new_id(),
        }
        return common | project | {"GOOGLE_CLOUD_PROJECT": services.PROJECT}
    where = urlsplit(request.getfixturevalue("postgres"))
    return common | {"SOAK_HOST": parse_qs(where.query)["host"][0], "SOAK_NAME": where.path.strip("/")}


def run(environ: dict[str, str], *arguments: str) -> int:
    command = [sys.executable, "-W", "ignore", str(kill_site.__file__), *arguments]
    return subprocess.run(command, env=environ, timeout=90, check=False).returncode


@pytest.mark.parametrize("store", ["django", "ndb"])
@pytest.mark.parametrize("point", kill_site.POINTS)
def test_a_kill_loses_nothing_and_runs_nothing_that_did_not_commit(
    environ: dict[str, str], tmp_path: Path, store: str, point: str
) -> None:
    notes = tmp_path / "notes"
    notes.touch()
    assert run(environ, store, point, str(notes)) == -signal.SIGKILL
    assert run(environ, store, "recover", str(notes)) == 0
    ran = notes.read_text().split()
    if point == "before commit":
        assert ran == []
        return
    assert set(ran) == {"small", "large"}
    if "after the call" not in point:
        assert len(ran) == 2
