"""A Cloud Tasks server in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

grpc = pytest.importorskip("grpc")
pytest.importorskip("google.cloud.tasks_v2")

from cloud_server import CloudServer, serving

from defer_core.transports import cloud_tasks
from defer_core.transports.cloud_tasks import CloudTasksTransport


@pytest.fixture
def server() -> Iterator[CloudServer]:
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's, and no waiting."""
    for name in ("GAE_SERVICE", "GAE_VERSION", "K_SERVICE", "GOOGLE_CLOUD_PROJECT", *cloud_tasks.EMULATORS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cloud_tasks, "BACKOFF", (0.001, 0.001, 0.001))


@pytest.fixture
def transport(server: CloudServer) -> Iterator[CloudTasksTransport]:
    made = CloudTasksTransport(project="p", location="l", emulator_host=f"127.0.0.1:{server.port}")
    yield made
    made.close()
