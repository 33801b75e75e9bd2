"""The sample for Cloud Run, as its README starts it here: `defer-local --grpc`, a web server, Google's emulator."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
import services

from defer_core.record import new_id

SAMPLE = Path(__file__).parents[2] / "examples" / "cloud_run"
PATIENCE = 30.0

pytest.importorskip("grpc")
pytest.importorskip("google.cloud.ndb")
pytest.importorskip("waitress")


def call(url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, str]:
    try:
        with urlopen(Request(url, method=method, data=body, headers=headers), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except URLError:
        return 0, ""


def comes_true(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def environment(firestore: str) -> dict[str, str]:
    url = f"http://127.0.0.1:{services.free_port()}"
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("DEFER_", "DJANGO_"))},
        "DATASTORE_EMULATOR_HOST": firestore,
        "DATASTORE_PROJECT_ID": f"sample-{new_id()[:12]}",
        "GOOGLE_CLOUD_PROJECT": "shop",
        "CLOUD_TASKS_LOCATION": "local",
        "CLOUD_TASKS_EMULATOR_HOST": f"127.0.0.1:{services.free_port()}",
        "SERVICE_URL": url,
        "TASK_KEY": "a-secret-of-this-machine-only",
    }


@pytest.fixture
def service(environment: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """The URL of the service, once all of it is up."""
    api, listen = environment["CLOUD_TASKS_EMULATOR_HOST"], environment["SERVICE_URL"].removeprefix("http://")
    queue = ["defer_local", "--grpc", api.rpartition(":")[2], "--file", str(tmp_path / "queue.sqlite3")]
    started = []
    with (tmp_path / "log").open("wb") as log:
        for command in (queue, ["waitress", f"--listen={listen}", "main:application"]):
            arguments = [sys.executable, "-m", *command]
            started.append(subprocess.Popen(arguments, cwd=SAMPLE, env=environment, stdout=log, stderr=log))
    try:
        making = [sys.executable, "-m", "defer_core", "queues", "create"]
        settings = {"DEFER_TRANSPORT": "cloud", "DEFER_QUEUES": "default"}
        made = comes_true(lambda: subprocess.run(making, env=environment | settings, check=False).returncode == 0)
        up = comes_true(lambda: call(environment["SERVICE_URL"])[0] == 404)
        assert made and up, (tmp_path / "log").read_text()
        yield environment["SERVICE_URL"]
    finally:
        for process in started:
            process.terminate()
        for process in started:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def test_an_order_is_paid_in_a_transaction_and_shipped_by_its_task(service: str) -> None:
    assert call(f"{service}/orders/7") == (404, "not found")
    assert call(f"{service}/orders/7", "POST") == (200, "paid")
    assert comes_true(lambda: call(f"{service}/orders/7") == (200, "shipped"))


def test_nobody_else_may_post_tasks(service: str) -> None:
    assert call(f"{service}/tasks", "POST", b"a task", Via="1.1 a-proxy")[0] == 403
    assert call(f"{service}/tasks", "GET")[0] == 405
