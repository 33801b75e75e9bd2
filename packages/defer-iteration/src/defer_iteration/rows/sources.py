"""The rows of what an iteration was given: a queryset, or a function that returns a queryset or Rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import IterationRefusedError
from .base import KeyRangesGetter, Rows

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from .queryset import QuerySetRows


def is_function(source: Any) -> bool:
    """Return whether a source is called for its rows; a manager can be called, too, and is none."""
    return callable(source) and not hasattr(source, "all")


def rows_of(source: Any, order_field: str = "pk", key_ranges_getter: KeyRangesGetter | None = None) -> Rows:
    """Return the rows of a source, in the order of a field. Raise IterationRefusedError for what cannot be walked."""
    found = source() if is_function(source) else source
    if isinstance(found, Rows):
        return found
    return rows_over(checked(found), order_field, key_ranges_getter)


def checked(queryset: Any) -> QuerySet[Any]:
    """Return a queryset that can be iterated. Raise IterationRefusedError."""
    try:
        from . import pickled  # Django must be there for a queryset, and set up; Rows can do without
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "django":
            raise
        raise IterationRefusedError(f"{queryset!r} is no Rows, and querysets need Django, which is missing.") from error
    return pickled.checked(queryset)


def rows_over(
    queryset: QuerySet[Any], order_field: str = "pk", key_ranges_getter: KeyRangesGetter | None = None
) -> QuerySetRows:
    """Return the rows of a queryset, by what its kind of database can be asked. Raise IterationRefusedError."""
    from defer_django.store import is_datastore

    if is_datastore(queryset.db):
        from .datastore import DatastoreRows

        return DatastoreRows(queryset, order_field, key_ranges_getter)
    from .queryset import QuerySetRows

    return QuerySetRows(queryset, order_field, key_ranges_getter)
