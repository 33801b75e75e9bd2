"""The store of a database alias: rows of SQL, or entities of a Datastore."""

from __future__ import annotations

from django.db import DEFAULT_DB_ALIAS

from .datastore import DatastoreTaskStore
from .store import DjangoTaskStore, is_datastore


def task_store(*, alias: str = DEFAULT_DB_ALIAS) -> DjangoTaskStore:
    """Make the store of an alias, whose siblings on other aliases are each of the kind that fits their database."""
    kind = DatastoreTaskStore if is_datastore(alias) else DjangoTaskStore
    return kind(alias=alias, make=task_store)
