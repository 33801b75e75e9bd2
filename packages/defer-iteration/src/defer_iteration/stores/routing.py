"""Which alias an iteration is stored on, and by which IterationStore: one that is in use, else Django's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

from defer_core.errors import ConfigError

from .base import IterationStore

if TYPE_CHECKING:
    from django.db.models import QuerySet

_in_use: dict[str, IterationStore] = {}


def store_on(alias: str) -> IterationStore:
    """Return the store on an alias: the one in use, else that of the Django database of the alias. Raise
    ConfigError."""
    if alias in _in_use:
        return _in_use[alias]
    store: IterationStore = _databases().store_on(alias)
    return store


def all_stores() -> list[IterationStore]:
    """Return the stores in use; if there are none, those of every Django database with tasks and our tables."""
    if _in_use:
        return list(_in_use.values())
    stores: list[IterationStore] = _databases().all_stores()
    return stores


def alias_for(queryset: QuerySet[Any] | None, using: str | None) -> str:
    """Return the alias of an iteration. What has no queryset has the first store in use, if any; for all else, see
    `aliases.alias_for`. Raise IterationRefusedError or ConfigError."""
    if queryset is None and _in_use and using in (None, *_in_use):
        return next(iter(_in_use)) if using is None else using
    alias: str = _databases().alias_for(queryset, using)
    return alias


@contextmanager
def in_use(*stores: IterationStore) -> Iterator[None]:
    """Use these stores, and no database, in a `with` block (for tests and simulations)."""
    before = dict(_in_use)
    _in_use.clear()
    _in_use.update({store.alias: store for store in stores})
    try:
        yield
    finally:
        _in_use.clear()
        _in_use.update(before)


def _databases() -> ModuleType:
    """Return the module of Django's databases, which is imported when it is needed. Raise ConfigError."""
    try:
        from . import aliases
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("django", "defer_django"):
            raise
        raise ConfigError(f"No IterationStore is in use here, and there is no {error.name} to store in.") from error
    return aliases
