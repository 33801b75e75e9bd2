"""The services of the tests: shared in a run, and missing ones skip or fail."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
import services


def test_postgres_serves_a_database_of_this_worker(postgres: str) -> None:
    [found] = services.ask_postgres(postgres, "SELECT current_database(), current_setting('fsync')")
    assert (found[0].startswith("defer_"), found[1]) == (True, "off")
    assert services.postgres_dsn() == postgres


@pytest.mark.parametrize("name", ["datastore", "firestore"])
def test_an_emulator_answers_and_is_shared(name: str, request: pytest.FixtureRequest) -> None:
    address = request.getfixturevalue(name)
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=5):
        assert getattr(services, f"{name}_emulator")() == address


def test_a_missing_service_skips_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_shared", _missing)
    monkeypatch.delenv("DEFER_REQUIRE_SERVICES", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no java"):
        services.datastore_emulator()


def test_a_missing_service_fails_where_services_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_shared", _missing)
    monkeypatch.setenv("DEFER_REQUIRE_SERVICES", "1")
    with pytest.raises(pytest.fail.Exception, match="no java"):
        services.datastore_emulator()


@pytest.mark.parametrize(
    "needed", [lambda: services.library("no_such_sdk"), lambda: services.program("no-such-program", "A test")]
)
def test_a_missing_library_or_program_counts_as_a_service(
    needed: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEFER_REQUIRE_SERVICES", raising=False)
    with pytest.raises(pytest.skip.Exception, match="such"):
        needed()
    monkeypatch.setenv("DEFER_REQUIRE_SERVICES", "1")
    with pytest.raises(pytest.fail.Exception, match="such"):
        needed()


def _missing(name: str, start: object) -> str:
    raise services.MissingServiceError("no java")
