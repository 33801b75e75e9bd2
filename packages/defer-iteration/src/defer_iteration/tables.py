"""On which Django database an iteration is kept."""

from __future__ import annotations

from typing import Any

from django.db import connections, router
from django.db.models import QuerySet

from defer_core.config import current
from defer_core.errors import ConfigError

from . import models
from .errors import IterationRefusedError

_SQL = ("sqlite", "postgresql", "mysql", "oracle")
"""Databases whose tables have to be made; Datastore has none."""
_with_tables: set[str] = set()


def has_tables(alias: str) -> bool:
    """Whether the tables of iterations are on an alias. A yes is remembered; raises nothing for an alias that is
    not reached."""
    if alias in _with_tables:
        return True
    if not router.allow_migrate_model(alias, models.Iteration):
        return False
    connection = connections[alias]
    if connection.vendor in _SQL and models.Iteration._meta.db_table not in connection.introspection.table_names():
        return False
    _with_tables.add(alias)
    return True


def alias_for(queryset: QuerySet[Any], using: str | None) -> str:
    """The alias of an iteration: `_using`, else the queryset's own, else the one its model is written to, if our
    tables are there; else the default. Raises IterationRefusedError or ConfigError."""
    if using is not None:
        if using not in connections:
            raise IterationRefusedError(
                f"_using is {using!r}, which is not among DATABASES ({', '.join(connections)})."
            )
        if not has_tables(using):
            raise IterationRefusedError(
                f"_using is {using!r}, where the tables of defer_iteration are missing: migrate it."
            )
        return _stored(using)
    wanted = queryset._db or router.db_for_write(queryset.model)
    return _stored(wanted if has_tables(wanted) else "default")


def keeps_tasks(alias: str) -> bool:
    """Whether a configured store keeps tasks on an alias."""
    return any(store.has_alias(alias) for store in current().stores)


def _stored(alias: str) -> str:
    """Task records must be on the same alias."""
    if not keeps_tasks(alias):
        raise ConfigError(
            f"The iteration is kept on the alias {alias!r}, and no configured store keeps tasks there: name the "
            'Django store in DEFER ("STORE": "django", or in "JOINS").'
        )
    return alias


def check_atomic(queryset: QuerySet[Any], alias: str) -> None:
    """`_atomic=True` needs the rows and the iteration in one database. Raises IterationRefusedError."""
    written = _written(queryset)
    if written != alias:
        raise IterationRefusedError(
            f"_atomic=True: {queryset.model.__name__} is written on the alias {written!r}, and the iteration is "
            f"kept on {alias!r}, so no transaction holds both. Say _using={written!r}, or make the callback "
            "idempotent instead."
        )


def _written(queryset: QuerySet[Any]) -> str:
    """The alias that its rows save themselves on: what the routers say, else where they were read."""
    asked = (each.db_for_write(queryset.model) for each in router.routers if hasattr(each, "db_for_write"))
    return next((alias for alias in asked if alias), queryset.db)
