"""A Cloud Tasks server in this process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import services

if TYPE_CHECKING:
    from cloud_server import CloudServer

    from defer_core.transports.cloud.transport import CloudTasksTransport

services.library("google.cloud.tasks_v2")


@pytest.fixture
def server() -> Iterator[CloudServer]:
    from cloud_server import serving

    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's, and no waiting."""
    from defer_core.transports.cloud import transport

    for name in ("GAE_SERVICE", "GAE_VERSION", "K_SERVICE", "GOOGLE_CLOUD_PROJECT", *transport.EMULATORS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(transport, "BACKOFF", (0.001, 0.001, 0.001))


@pytest.fixture
def transport(server: CloudServer) -> Iterator[CloudTasksTransport]:
    from defer_core.transports.cloud.transport import CloudTasksTransport

    made = CloudTasksTransport(project="p", location="l", emulator_host=f"127.0.0.1:{server.port}")
    yield made
    made.close()
