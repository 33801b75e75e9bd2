"""Which IterationStore is on an alias."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .base import IterationStore

_in_use: dict[str, IterationStore] = {}


def store_on(alias: str) -> IterationStore:
    """The store on an alias: one that is in use, else the Django database of that alias."""
    if alias in _in_use:
        return _in_use[alias]
    from defer_django.store import is_datastore

    if is_datastore(alias):
        from .store_datastore import DatastoreIterationStore

        return DatastoreIterationStore(alias)
    from .store_django import DjangoIterationStore

    return DjangoIterationStore(alias)


def all_stores() -> list[IterationStore]:
    """The stores in use; where there are none, every Django database that keeps tasks and has our tables."""
    if _in_use:
        return list(_in_use.values())
    from django.db import connections

    from .tables import has_tables, keeps_tasks

    return [store_on(alias) for alias in connections if keeps_tasks(alias) and has_tables(alias)]


@contextmanager
def in_use(*stores: IterationStore) -> Iterator[None]:
    """Use these stores, and no database, for the length of a `with` block (tests and simulations)."""
    before = dict(_in_use)
    _in_use.clear()
    _in_use.update({store.alias: store for store in stores})
    try:
        yield
    finally:
        _in_use.clear()
        _in_use.update(before)
