"""A PostgreSQL beside the databases of the settings, for tests of its own races."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.core.management import call_command
from django.db import connections
from testapp import iterations

from defer_core import config
from defer_core.testing import in_memory
from defer_core.transports.memory import MemoryTransport

ALIAS = "races"


@pytest.fixture(scope="session")
def postgres_alias(postgres: str, django_db_blocker: Any) -> Iterator[str]:
    """The alias of a migrated PostgreSQL."""
    where = urlsplit(postgres)
    own = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": where.path.strip("/"),
        "USER": where.username or "postgres",
        "HOST": parse_qs(where.query)["host"][0],
        "OPTIONS": {},
    }
    with django_db_blocker.unblock():
        connections.settings[ALIAS] = {**connections.settings["default"], **own}
        call_command("migrate", database=ALIAS, run_syncdb=True, verbosity=0)
        yield ALIAS
        connections[ALIAS].close()
        del connections.settings[ALIAS]


@pytest.fixture
def races(postgres_alias: str, django_db_blocker: Any) -> Iterator[MemoryTransport]:
    """A queue in memory, with everything else empty on PostgreSQL."""
    iterations.reset()
    config.reset()
    with django_db_blocker.unblock(), in_memory(store="django", store_options={"alias": postgres_alias}) as transport:
        call_command("flush", database=postgres_alias, interactive=False, verbosity=0)
        yield transport
    iterations.reset()
