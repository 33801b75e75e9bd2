"""A queryset on the wire: its pickled query and the release of Django that pickled it; and which querysets can be
iterated."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import django
from django.db import models
from django.db.models.query import ModelIterable, QuerySet

from defer_core.errors import UnserializableError
from defer_core.spi import current

from ..errors import HeldError, IterationRefusedError

log = logging.getLogger("defer")

Packed = dict[str, Any]
_LEFT_HERE = {
    "model", "_query", "_db", "_hints", "_result_cache", "_prefetch_done", "_known_related_objects", "_deferred_filter",
}  # fmt: skip
"""Attributes of a queryset that travel in another way, or belong to this process."""


def checked(queryset: Any) -> QuerySet[Any]:
    """Return a queryset that can be iterated. Raise IterationRefusedError, which says what to do instead."""
    if isinstance(queryset, models.Manager):
        queryset = queryset.all()
    if not isinstance(queryset, QuerySet):
        raise _refused(queryset, "it is not a queryset: give one, or a module-level function that returns one")
    query = queryset.query
    if query.is_sliced:
        raise _refused(queryset, "it is sliced: filter it instead")
    if query.combinator:
        raise _refused(queryset, f"it is combined ({query.combinator}): combine the conditions with Q objects instead")
    if query.distinct_fields:
        raise _refused(queryset, "it is distinct on some fields: filter it, for example by a subquery, instead")
    if not issubclass(queryset._iterable_class, ModelIterable):
        raise _refused(queryset, "it yields values instead of instances: remove values(), values_list() or dates()")
    if query.select_for_update:
        raise _refused(queryset, "it is select_for_update: lock the row in the callback instead")
    if query.where.contains_over_clause:
        raise _refused(
            queryset,
            "it is filtered by a window function, which would see the rows of one page only: filter by a subquery, "
            f"{queryset.model.__name__}.objects.filter(pk__in=queryset.values('pk'))",
        )
    return queryset


def _refused(queryset: Any, why: str) -> IterationRefusedError:
    what = f"The queryset of {queryset.model.__name__}" if isinstance(queryset, QuerySet) else repr(queryset)
    return IterationRefusedError(f"{what} cannot be iterated: {why}.")


def pack(queryset: QuerySet[Any]) -> Packed:
    """Return what travels of a queryset, without fetching its rows. Raise UnserializableError."""
    if not current().allow_pickle:
        raise UnserializableError(
            "A queryset travels pickled, and pickle is not allowed: give a function that returns it.", path="queryset"
        )
    query = queryset.query  # includes a deferred filter
    attributes = {name: value for name, value in vars(queryset).items() if name not in _LEFT_HERE}
    try:
        pickled = pickle.dumps((type(queryset), queryset.model, query, attributes), 5)
    except Exception as error:
        which = next((f", with its attribute {name!r}," for name in attributes if not _travels(attributes[name])), "")
        message = (
            f"The queryset of {queryset.model.__name__}{which} cannot travel: {error}. Give a function that returns it."
        )
        raise UnserializableError(message, path="queryset") from error
    # the rows of a related manager are looked for where its instance is
    using = queryset._db or (queryset.db if queryset._hints else None)
    return {"query": pickled, "using": using, "django": django.get_version()}


def _travels(value: Any) -> bool:
    try:
        pickle.dumps(value, 5)
    except Exception:
        return False
    return True


def unpack(packed: Packed) -> QuerySet[Any]:
    """Return the queryset. Raise HeldError if another feature release of Django has pickled it."""
    made, here = packed["django"], django.get_version()
    if made.split(".")[:2] != here.split(".")[:2]:
        raise HeldError(
            f"The queryset was pickled by Django {made}, and this is Django {here}: resume() under {made}, or cancel() "
            "and start again. (A function that returns the queryset works under any release.)"
        )
    if made != here:
        log.warning("An iteration's queryset was pickled by Django %s, and runs under %s.", made, here)
    cls, model, query, attributes = pickle.loads(packed["query"])
    queryset: QuerySet[Any] = cls(model=model, query=query, using=packed["using"])
    vars(queryset).update(attributes)
    return queryset
