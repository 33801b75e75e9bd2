"""Databases beside those of the settings, for tests that need a real service whatever `DEFER_TEST_DATABASE` says."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock
from urllib.parse import parse_qs, urlsplit

import services
from django.core.management import call_command
from django.db import connections


def postgres_database(uri: str) -> dict[str, Any]:
    """Django's settings of a database on PostgreSQL."""
    where = urlsplit(uri)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": where.path.strip("/"),
        "USER": where.username or "postgres",
        "HOST": parse_qs(where.query)["host"][0],
        "OPTIONS": {},
    }


def datastore_database(namespace: str) -> dict[str, Any]:
    """Django's settings of a namespace on an emulator, by `gcloudc`."""
    return {
        "ENGINE": "firestore_engine",
        "PROJECT": services.PROJECT,
        "NAMESPACE": f"{namespace}-{os.getpid()}",
        "INDEXES_FILE": f"{tempfile.gettempdir()}/defer-tests-{os.getpid()}-indexes.yaml",
        "OPTIONS": {"count_mode": "emulated"},
    }


@contextmanager
def alias(name: str, database: dict[str, Any]) -> Iterator[str]:
    """A further alias, migrated, for the length of a `with` block."""
    connections.settings[name] = {**connections.settings["default"], **database}
    try:
        call_command("migrate", database=name, run_syncdb=True, verbosity=0)
        yield name
    finally:
        connections[name].close()
        del connections.settings[name]
        if hasattr(connections._connections, name):
            del connections[name]


@contextmanager
def emulator(address: str) -> Iterator[None]:
    """Google's libraries go to an emulator."""
    with mock.patch.dict(os.environ, DATASTORE_EMULATOR_HOST=address, DATASTORE_PROJECT_ID=services.PROJECT):
        yield


def empty(name: str) -> None:
    """Nothing is left on an alias. What a migration makes is not made anew, which takes seconds on the Datastore."""
    call_command("flush", database=name, interactive=False, verbosity=0, inhibit_post_migrate=True)
