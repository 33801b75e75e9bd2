"""Fixtures that several folders of tests share: the real services."""

from __future__ import annotations

import pytest
import services

services.prepare_run()  # before xdist starts its workers, which share what this process owns


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
