"""The databases of a Django project: which of them iterations are stored on."""

from __future__ import annotations

from typing import Any

from django.db import connections, router
from django.db.models import QuerySet

from defer_core.errors import ConfigError
from defer_core.spi import current
from defer_django.store import is_datastore, is_forbidden

from ..errors import IterationRefusedError
from .base import IterationStore

_SQL = ("sqlite", "postgresql", "mysql", "oracle")
"""Databases whose tables must be created; Datastore has none."""
_with_tables: set[str] = set()


def store_on(alias: str) -> IterationStore:
    """Return the store of an alias."""
    if is_datastore(alias):
        from .datastore import DatastoreIterationStore

        return DatastoreIterationStore(alias)
    from .django import DjangoIterationStore

    return DjangoIterationStore(alias)


def all_stores() -> list[IterationStore]:
    """Return the stores of every database with tasks and our tables."""
    aliases = [alias for alias in connections if keeps_tasks(alias) and not is_forbidden(alias)]
    return [store_on(alias) for alias in aliases if has_tables(alias)]


def has_tables(alias: str) -> bool:
    """Return whether an alias has the tables of iterations, and remember a yes."""
    from .. import models  # at the call, once Django is set up

    if alias in _with_tables:
        return True
    if not router.allow_migrate_model(alias, models.Iteration):
        return False
    connection = connections[alias]
    if connection.vendor in _SQL and models.Iteration._meta.db_table not in connection.introspection.table_names():
        return False
    _with_tables.add(alias)
    return True


def alias_for(queryset: QuerySet[Any] | None, using: str | None) -> str:
    """Return the alias of an iteration: `_using`, else the one that its model is written to (by the routers, or else
    the queryset's own), if our tables are there; else, and without a queryset, the default. Raise IterationRefusedError
    or ConfigError."""
    if using is not None:
        if using not in connections:
            raise IterationRefusedError(
                f"_using is {using!r}, which is not among DATABASES ({', '.join(connections)})."
            )
        if not has_tables(using):
            raise IterationRefusedError(
                f"_using is {using!r}, which has no tables of defer_iteration: run manage.py migrate --database={using}"
            )
        return _stored(using)
    if queryset is None:
        return _stored("default")
    wanted = _routed(queryset) or queryset._db or router.db_for_write(queryset.model, **queryset._hints)
    return _stored(wanted if has_tables(wanted) else "default")


def keeps_tasks(alias: str) -> bool:
    """Return whether a configured store keeps tasks on an alias."""
    return any(store.has_alias(alias) for store in current().stores)


def _stored(alias: str) -> str:
    """Return the alias, on which there must be a store of tasks. Raise ConfigError."""
    if not keeps_tasks(alias):
        raise ConfigError(
            f"The iteration is stored on the alias {alias!r}, and no configured store keeps tasks there: name the "
            'Django store in DEFER ("STORE": "django", or in "JOINS").'
        )
    return alias


def check_atomic(queryset: QuerySet[Any], alias: str) -> None:
    """Check that the rows and the iteration are in one database. Raise IterationRefusedError."""
    written = _routed(queryset) or queryset.db
    if written != alias:
        raise IterationRefusedError(
            f"_atomic=True: {queryset.model.__name__} is written on the alias {written!r}, not on {alias!r}, so no "
            f"transaction spans its rows and the iteration. Say _using={written!r}, or make the callback idempotent "
            "instead."
        )


def _routed(queryset: QuerySet[Any]) -> str | None:
    """Return the alias that the routers name for writes of the queryset's model, or None."""
    asked = (each.db_for_write(queryset.model) for each in router.routers if hasattr(each, "db_for_write"))
    return next((alias for alias in asked if alias), None)
