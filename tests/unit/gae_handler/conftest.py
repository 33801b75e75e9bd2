"""What the tests of the handler share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from unit.gae_handler.handled import QUEUE, calls

from defer_core.testing import MemoryTransport, forget_configuration, in_memory
from defer_gae_handler import Request

Poster = Callable[..., Request]


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Not on Google Cloud, nothing configured."""
    for name in ("GAE_ENV", "K_SERVICE", "DEFER_AUTHENTICATORS", "DEFER_TRANSPORT"):
        monkeypatch.delenv(name, raising=False)
    forget_configuration()
    calls.clear()
    yield
    forget_configuration()


@pytest.fixture
def app_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """On App Engine."""
    monkeypatch.setenv("GAE_ENV", "standard")


@pytest.fixture
def queue() -> Iterator[MemoryTransport]:
    """A queue and a store in memory."""
    with in_memory() as transport:
        yield transport


@pytest.fixture
def post() -> Poster:
    """Makes the request of a task: `post(body, **fields)`."""

    def make(body: bytes = b"", **fields: Any) -> Request:
        given = {"method": "POST", "path": "/_ah/queue/deferred", "headers": QUEUE, "remote_addr": "0.1.0.2"}
        return Request(**{**given, "read": lambda size=-1: body, **fields})

    return make
