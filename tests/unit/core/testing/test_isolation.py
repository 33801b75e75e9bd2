"""A test has a queue in memory in the place of a real one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from defer_core import ConfigError, defer, defer_many
from defer_core.config import as_configured, configured, current
from defer_core.testing import MemoryStore, MemoryTransport, drain
from defer_core.testing.isolation import isolated, not_isolated
from defer_core.transports.cloud.transport import CloudTasksTransport
from defer_gae_handler import make_application

LARGE = random.Random(0).randbytes(300_000)
ran: list[Any] = []


class Ours(CloudTasksTransport):
    """A real one of somebody's own."""


class Recorder(MemoryTransport):
    """A fake of somebody's own."""


def ship(order: object, fast: bool = False) -> None:
    ran.append((order, fast))


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    """Nothing has run, and nothing is configured."""
    ran.clear()
    with configured():
        yield


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"transport": "cloud"},
        {"transport": "cloud", "store": "sqlite", "store_options": {"file": "/no/such/folder/file"}},
        {"transport": "appengine"},
        {"transport": "local"},
        {"transport": "defer_local.transport:LocalTransport", "store": "sqlite"},
        {"transport": f"{__name__}:Ours", "store": "ndb"},
        {"transport": "memory"},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore")  # App Engine's SDK, as it is imported
def test_a_test_s_queue_is_its_own(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with configured(**settings):
        for _ in range(2):
            with isolated():
                assert defer(ship, 1, _name="only").was_enqueued
                defer_many(ship, [(LARGE,), (3,)])
                assert drain().done == 3
        assert [order for order, _ in ran] == [1, LARGE, 3] * 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "transport", [MemoryTransport(), f"{__name__}:Recorder", "immediate"], ids=["instance", "class", "name"]
)
def test_what_somebody_has_chosen_for_tests_is_left_alone(transport: Any) -> None:
    with configured(transport=transport, store=MemoryStore()) as said, isolated():
        assert current() is said


def test_a_test_may_ask_for_the_real_one() -> None:
    with isolated(), not_isolated(), pytest.raises(ConfigError, match="not configured"):
        defer(ship, 1)
    assert current() is not as_configured()  # this one did not


@pytest.mark.parametrize("transport", ["local", "appengine"])
def test_the_handler_has_the_authenticator_of_the_real_transport(
    transport: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with configured(transport=transport), isolated():
        assert make_application()
        assert current().authenticators == [transport]
    assert list(tmp_path.iterdir()) == []


def test_threads_have_one_configuration() -> None:
    with configured(transport="cloud"), isolated(), ThreadPoolExecutor(8) as pool:
        assert len({id(each) for each in pool.map(lambda _: current(), range(200))}) == 1


def test_several_configurations_of_one_test_share_its_queue() -> None:
    with isolated():
        with configured(transport="cloud"):
            defer(ship, LARGE)
        with configured(transport="local"):
            assert drain().done == 1


def test_a_transaction_of_datastore_is_joined() -> None:
    with configured(transport="cloud"), isolated():
        first, joined = current().stores
        assert (first.name, joined.name) == ("memory", "ndb")
        assert current().every_store() == (first,)  # and is not swept
