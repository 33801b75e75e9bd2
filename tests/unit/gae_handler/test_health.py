"""Uptime checks of services without a framework."""

from __future__ import annotations

import json
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from defer_core.spi import State, TaskRecord, clock, new_id
from defer_core.testing import MemoryStore, in_memory
from defer_gae_handler.health import application


def ask(method: str = "GET") -> tuple[str, dict[str, str], bytes]:
    environ: dict[str, Any] = {"REQUEST_METHOD": method}
    setup_testing_defaults(environ)
    told: list[Any] = []
    body = b"".join(application(environ, lambda *args: told.extend(args)))
    return told[0], dict(told[1]), body


def test_a_healthy_service_answers_200_and_another_503() -> None:
    store = MemoryStore()
    with in_memory(store=store):
        status, headers, body = ask()
        assert (status, json.loads(body)) == ("200 OK", {"healthy": True, "reasons": []})
        assert headers["Content-Type"] == "application/json" and headers["Cache-Control"] == "no-store"
        store.put([TaskRecord(id=new_id(), envelope=b"", state=State.DEAD, last_attempt=clock.now())])
        status, _, body = ask("HEAD")
        assert (status, json.loads(body)["healthy"]) == ("503 Service Unavailable", False)


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_only_reading_is_allowed(method: str) -> None:
    status, headers, _ = ask(method)
    assert (status, headers["Allow"]) == ("405 Method Not Allowed", "GET, HEAD")
