"""A PostgreSQL and a Datastore beside the databases of the settings, for tests of their own races."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aliases
import pytest
from testapp import iterations

from defer_core import config
from defer_core.testing import in_memory
from defer_core.transports.memory import MemoryTransport

ALIAS = "races"


@pytest.fixture(scope="module")
def postgres_alias(postgres: str, django_db_blocker: Any) -> Iterator[str]:
    """The alias of a migrated PostgreSQL."""
    with django_db_blocker.unblock(), aliases.alias(ALIAS, aliases.postgres_database(postgres)) as name:
        yield name


@pytest.fixture
def races(postgres_alias: str, django_db_blocker: Any) -> Iterator[MemoryTransport]:
    """A queue in memory, with everything else empty on PostgreSQL."""
    with django_db_blocker.unblock(), empty_queue(postgres_alias) as transport:
        yield transport


@contextmanager
def on_emulator(name: str, address: str) -> Iterator[str]:
    """An alias on an emulator of the Datastore."""
    with aliases.emulator(address), aliases.alias(name, aliases.datastore_database(name)):
        yield name


@contextmanager
def empty_queue(name: str) -> Iterator[MemoryTransport]:
    """A queue in memory, with everything else empty on that alias."""
    iterations.reset()
    config.reset()
    with in_memory(store="django", store_options={"alias": name}) as transport:
        aliases.empty(name)
        yield transport
    iterations.reset()


@pytest.fixture(scope="module")
def protocol_alias(firestore: str, django_db_blocker: Any) -> Iterator[str]:
    """An alias on Google's Firestore emulator in Datastore mode."""
    with django_db_blocker.unblock(), on_emulator("protocol", firestore) as name:
        yield name


@pytest.fixture(scope="module")
def scatter_alias(datastore: str, django_db_blocker: Any) -> Iterator[str]:
    """An alias on Google's Datastore emulator."""
    with django_db_blocker.unblock(), on_emulator("scatter", datastore) as name:
        yield name


@pytest.fixture
def firestore_queue(protocol_alias: str, firestore: str, django_db_blocker: Any) -> Iterator[MemoryTransport]:
    """A queue in memory, everything else in the alias `protocol`."""
    with django_db_blocker.unblock(), aliases.emulator(firestore), empty_queue(protocol_alias) as transport:
        yield transport


@pytest.fixture
def datastore_queue(scatter_alias: str, datastore: str, django_db_blocker: Any) -> Iterator[MemoryTransport]:
    """A queue in memory, everything else in the alias `scatter`."""
    with django_db_blocker.unblock(), aliases.emulator(datastore), empty_queue(scatter_alias) as transport:
        yield transport
