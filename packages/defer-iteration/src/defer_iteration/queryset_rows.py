"""The rows of a queryset, in keyset pages: no OFFSET, and a query that never grows."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from operator import attrgetter
from typing import Any, ClassVar

from django.db.models import F, QuerySet

from defer_django.store import is_datastore

from .job import KeyRangesGetter
from .ordering import ordering_of
from .rows import PAGE, Rows, Split
from .shard import Key, KeyRange
from .splitting import repeats_rows, split, split_by
from .statement import Part, Statement, plain_columns, streamed

_VALUE = "_defer_order_value"


def rows_over(
    queryset: QuerySet[Any], order_field: str = "pk", key_ranges_getter: KeyRangesGetter | None = None
) -> QuerySetRows:
    """The rows of a queryset, as its kind of database can be asked for them. Raises IterationRefusedError."""
    if is_datastore(queryset.db):
        from .datastore_rows import DatastoreRows

        return DatastoreRows(queryset, order_field, key_ranges_getter)
    return QuerySetRows(queryset, order_field, key_ranges_getter)


class QuerySetRows(Rows):
    """A queryset in the order of a field. Everything else that the caller asked of it stays as it is."""

    in_sql: ClassVar[bool] = True
    """Whether the database is asked in SQL, which is made once for all pages."""

    def __init__(
        self, queryset: QuerySet[Any], order_field: str = "pk", key_ranges_getter: KeyRangesGetter | None = None
    ) -> None:
        self.queryset = queryset.order_by()
        self.queryset.query.standard_ordering = True  # which `reverse()` has turned, and `order_by()` leaves as it is
        self.ordering = ordering_of(queryset, order_field)
        self.key_ranges_getter = key_ranges_getter
        self.repeats = repeats_rows(queryset)
        self.limit = PAGE
        self.page_size = 1 if self.repeats else PAGE  # of repeated rows, any number may make a page
        self._made: tuple[KeyRange, QuerySet[Any]] | None = None
        self._following: Statement | None = None
        self.with_value, self.take_key = self._with_value()  # type: ignore[method-assign, assignment]
        self.columns = plain_columns(self.with_value) if self.in_sql else None

    def split(self, shards: int) -> Split:
        if self.key_ranges_getter is not None:
            return split_by(self.key_ranges_getter, self.queryset, self.ordering, shards)
        return split(self.queryset, self.ordering, shards)

    def page(self, within: KeyRange, after: Key | None) -> Iterator[Any]:
        """Instances are made one by one, but the statement is finished before the first is passed (as `iterator()` has
        it under DISABLE_SERVER_SIDE_CURSORS): a SELECT left open would keep SQLite from writing."""
        found = self._range(within)
        streamed = self._streamed(found[: self.limit] if after is None else self._page_beyond(found, within, after))
        return self._once(streamed) if self.repeats else streamed

    def take_key(self, row: Any) -> Any:
        raise NotImplementedError  # each instance has its own

    def _range(self, within: KeyRange) -> QuerySet[Any]:
        """All rows of a range, in order; made once, for an attempt has one range."""
        if self._made is None or self._made[0] is not within:
            found = self.with_value.filter(self.ordering.within(within)).order_by(*self._columns(within))
            self._made = within, found if self.columns is None else found.values_list(*self.columns)
            self._following = None
        return self._made[1]

    def _page_beyond(self, found: QuerySet[Any], within: KeyRange, after: Key) -> QuerySet[Any]:
        """The next rows of a range beyond a key."""
        if not self.in_sql:
            return found.filter(self.ordering.above(after, nulls=within.nulls))[: self.limit]
        if self._following is None:
            parts = tuple(Part(field) for field in self.ordering.fields)
            beyond = found.filter(self.ordering.above(parts, nulls=within.nulls))
            self._following = Statement(beyond[: self.limit], parts)
        return self._following.beyond(after)

    def _streamed(self, found: QuerySet[Any]) -> Iterator[Any]:
        """Instances, made one by one."""
        rows = streamed(found, self.limit)
        return rows if self.columns is None else map(partial(found.model.from_db, found.db, self.columns), rows)

    def _columns(self, within: KeyRange) -> tuple[str, ...]:
        """What a range is ordered by."""
        return self.ordering.columns(nulls=within.nulls)

    def _once(self, rows: Iterator[Any]) -> Iterator[Any]:
        """Rows without repetitions, which are neighbours; those of the page before are not beyond its last key."""
        last = None
        for row in rows:
            key = self.take_key(row)
            if key != last:
                last = key
                yield row

    def find(self, key: Key) -> Any | None:
        return self.queryset.filter(pk=key[-1]).first()

    def _with_value(self) -> tuple[QuerySet[Any], attrgetter[Any]]:
        """The queryset with the order value in each row, and what takes the key from a row."""
        ordering, pk = self.ordering, self.queryset.model._meta.pk.attname
        if ordering.field is None:
            return self.queryset, attrgetter(pk)
        if ordering.attribute is not None and not self.queryset.query.deferred_loading[0]:
            return self.queryset, attrgetter(ordering.attribute, pk)
        return self.queryset.annotate(**{_VALUE: F(ordering.field)}), attrgetter(_VALUE, pk)
