"""The rows of a queryset, in keyset pages: no OFFSET, and a query that never grows."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import Any

from django.db.models import F, QuerySet

from .job import KeyRangesGetter
from .ordering import ordering_of
from .rows import PAGE, Rows, Split
from .shard import Key, KeyRange
from .splitting import repeats_rows, split, split_by

_VALUE = "_defer_order_value"


class QuerySetRows(Rows):
    """A queryset in the order of a field. Everything else that the caller asked of it stays as it is."""

    def __init__(
        self, queryset: QuerySet[Any], order_field: str = "pk", key_ranges_getter: KeyRangesGetter | None = None
    ) -> None:
        self.queryset = queryset.order_by()
        self.ordering = ordering_of(queryset, order_field)
        self.key_ranges_getter = key_ranges_getter
        self.repeats = repeats_rows(queryset)
        self.pk = queryset.model._meta.pk.attname

    def split(self, shards: int) -> Split:
        if self.key_ranges_getter is not None:
            return split_by(self.key_ranges_getter, self.queryset, self.ordering, shards)
        return split(self.queryset, self.ordering, shards)

    def pages(self, within: KeyRange, after: Key | None) -> Iterator[Iterator[tuple[Key, Any]]]:
        queryset, get = self._with_value()
        found = queryset.filter(self.ordering.within(within)).order_by(*self.ordering.columns(nulls=within.nulls))
        page = _Page(last=after)
        while page.last is not _END:
            left = found if page.last is None else found.filter(self.ordering.above(page.last, nulls=within.nulls))
            yield page.stream(left, get, repeats=self.repeats)

    def find(self, key: Key) -> Any | None:
        return self.queryset.filter(pk=key[-1]).first()

    def _with_value(self) -> tuple[QuerySet[Any], attrgetter[Any]]:
        """The queryset, and what takes a row's key apart from it (before the callback can change it)."""
        ordering = self.ordering
        if ordering.field is None:
            return self.queryset, attrgetter(self.pk)
        if ordering.attribute is not None and not self.queryset.query.deferred_loading[0]:
            return self.queryset, attrgetter(ordering.attribute, self.pk)
        return self.queryset.annotate(**{_VALUE: F(ordering.field)}), attrgetter(_VALUE, self.pk)


_END: Any = object()


class _Page:
    """Where the pages of a range have come to: `last` is the last key seen, or `_END`."""

    def __init__(self, last: Key | None) -> None:
        self.last: Any = last

    def stream(self, found: QuerySet[Any], get: attrgetter[Any], *, repeats: bool) -> Iterator[tuple[Key, Any]]:
        """One page. The statement is finished before the first row is passed (it asks for one row more than there can
        be): a SELECT left open would keep SQLite from writing."""
        number, last = 0, self.last
        for row in found[:PAGE].iterator(chunk_size=PAGE + 1):
            number += 1
            key = get(row)
            if key.__class__ is not tuple:
                key = (key,)
            if repeats and key == last:
                continue
            last = key
            yield key, row
        self.last = _END if number < PAGE else last
