"""A queryset on the wire: its pickled query and the Django release that made it; and which querysets can be
iterated."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import django
from django.db import models
from django.db.models.query import ModelIterable, QuerySet

from defer_core.config import current
from defer_core.errors import UnserializableError

from .errors import HeldError, IterationRefusedError

log = logging.getLogger("defer")

Packed = dict[str, Any]


def checked(queryset: Any) -> QuerySet[Any]:
    """A queryset that can be iterated. Raises IterationRefusedError, saying what is wrong and what to do instead."""
    if isinstance(queryset, models.Manager):
        queryset = queryset.all()
    if not isinstance(queryset, QuerySet):
        raise _refused(queryset, "it is no queryset: give one, or a function at the top of a module that returns one")
    query = queryset.query
    if query.is_sliced:
        raise _refused(queryset, "it is sliced: filter it instead")
    if query.combinator:
        raise _refused(queryset, f"it is combined ({query.combinator}): combine the conditions with Q objects instead")
    if query.distinct_fields:
        raise _refused(queryset, "it is distinct on some fields: filter it, for example by a subquery, instead")
    if queryset._iterable_class is not ModelIterable:
        raise _refused(queryset, "it yields values instead of instances: leave values(), values_list() or dates() out")
    if query.select_for_update:
        raise _refused(queryset, "it is select_for_update: lock the row in the callback instead")
    if len(getattr(queryset.model._meta, "pk_fields", [0])) > 1:
        raise _refused(queryset, "its model has a composite primary key, which is not supported")
    return queryset


def _refused(queryset: Any, why: str) -> IterationRefusedError:
    what = f"The queryset of {queryset.model.__name__}" if isinstance(queryset, QuerySet) else repr(queryset)
    return IterationRefusedError(f"{what} cannot be iterated: {why}.")


def pack(queryset: QuerySet[Any]) -> Packed:
    """What of a queryset travels; nothing is fetched. Raises UnserializableError."""
    if not current().allow_pickle:
        raise UnserializableError(
            "A queryset travels pickled, and pickle is not allowed: give a function that returns it.", path="queryset"
        )
    content = (type(queryset), queryset.model, queryset.query, queryset._prefetch_related_lookups)
    try:
        pickled = pickle.dumps(content, 5)
    except Exception as error:
        message = f"The queryset of {queryset.model.__name__} cannot travel: {error}. Give a function that returns it."
        raise UnserializableError(message, path="queryset") from error
    return {"query": pickled, "using": queryset._db, "django": django.get_version()}


def unpack(packed: Packed) -> QuerySet[Any]:
    """The queryset again. Raises HeldError for one that another feature release of Django has pickled."""
    made, here = packed["django"], django.get_version()
    if made.split(".")[:2] != here.split(".")[:2]:
        raise HeldError(
            f"The queryset was pickled by Django {made}, and this is Django {here}: resume() under {made}, or cancel() "
            "and start again. (A function that returns the queryset is not bound to a release.)"
        )
    if made != here:
        log.warning("An iteration's queryset was pickled by Django %s, and runs under %s.", made, here)
    cls, model, query, lookups = pickle.loads(packed["query"])
    queryset = cls(model=model, query=query, using=packed["using"])
    queryset._prefetch_related_lookups = lookups
    return queryset
