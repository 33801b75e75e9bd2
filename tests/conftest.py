"""Fixtures that several folders of tests share: the real services."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import services

DATABASES = {"sqlite": {"on_sqlite", "on_sql"}, "postgres": {"on_postgres", "on_sql"}, "gcloudc": {"on_gcloudc"}}
"""The marks of the tests that each database can show."""

services.prepare_run()  # before xdist starts its workers, which share what this process owns


ISOLATED = [Path(__file__).parent / name for name in ("unit", "contract", "simulation")]
"""Where tests have a queue of their own, as those of users have; the others send to real ones."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the tests' own database cannot show; its lane runs it."""
    for item in items:
        if not any(item.path.is_relative_to(folder) for folder in ISOLATED):
            item.add_marker(pytest.mark.defer_real)
    shown = DATABASES[os.environ.get("DEFER_TEST_DATABASE", "sqlite")]
    others = set().union(*DATABASES.values()) - shown
    left = [item for item in items if any(item.get_closest_marker(other) for other in others)]
    items[:] = [item for item in items if item not in left]
    config.hook.pytest_deselected(items=left)


@pytest.fixture(scope="session")
def postgres() -> str:
    """A URI of this worker's own database on a real PostgreSQL."""
    return services.postgres_dsn()


@pytest.fixture(scope="session")
def datastore() -> str:
    """`host:port` of Google's Datastore emulator."""
    return services.datastore_emulator()


@pytest.fixture(scope="session")
def firestore() -> str:
    """`host:port` of Google's Firestore emulator in Datastore mode."""
    return services.firestore_emulator()
