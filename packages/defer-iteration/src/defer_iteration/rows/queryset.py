"""The rows of a queryset, in keyset pages: without OFFSET, so that later pages cost no more than the first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import repeat
from operator import attrgetter
from typing import Any, ClassVar

from django.db import DataError, Error, OperationalError
from django.db.models import QuerySet
from django.db.models.query import ModelIterable

from ..model.shard import Key, KeyRange, cut
from .base import PAGE, KeyRangesGetter, Rows, Split
from .compiled import Part, Statement, plain_columns, streamed
from .expressions import repeats_rows
from .order_field import check_finite, ordered
from .split import bounds_from, keys_of, ranges_by, split, split_by


class QuerySetRows(Rows):
    """A queryset in the order of a field. All else that the caller asked for is kept."""

    in_sql: ClassVar[bool] = True
    """Whether queries are SQL, which is compiled once for all pages of a size."""

    def __init__(
        self, queryset: QuerySet[Any], order_field: str = "pk", key_ranges_getter: KeyRangesGetter | None = None
    ) -> None:
        self.queryset = queryset.order_by()
        self.queryset.query.standard_ordering = True  # undoes `reverse()`, which `order_by()` keeps
        self.with_key, self.ordering = ordered(self.queryset, order_field, in_sql=self.in_sql)
        self.key_ranges_getter = key_ranges_getter
        self.repeats = repeats_rows(queryset.query)
        self.limit = self.asked = PAGE
        self.makes_all = queryset._iterable_class is ModelIterable
        self.page_size = 1 if self.repeats or not self.makes_all else PAGE  # a page may be of any number of rows then
        self._within: KeyRange | None = None
        self._statements: dict[Any, Statement] = {}
        self._before: Key = ()
        self.take_key = attrgetter(*self.ordering.attributes)  # type: ignore[method-assign, assignment]
        self.columns = plain_columns(self.with_key) if self.in_sql else None

    def split(self, shards: int) -> Split:
        check_finite(self.with_key, self.ordering)
        if self.key_ranges_getter is not None:
            given = ranges_by(self.key_ranges_getter, self.queryset, shards)
            return split_by(given, self.with_key, self.ordering)
        return split(self.with_key, self.ordering, shards)

    def ask_for(self, rows: int) -> int:
        self.asked = min(rows, self.limit)
        return min(self.page_size, self.asked)

    def page(self, within: KeyRange, after: Key | None) -> Iterator[Any]:
        """Yield the instances of a page, made one by one. Its statement is finished before the first is passed (as with
        `iterator()` under DISABLE_SERVER_SIDE_CURSORS): an open SELECT would keep SQLite from writing."""
        rows = self._page(within, after)
        return rows if self.makes_all else self._beyond_dropped(rows, within, after)

    def _page(self, within: KeyRange, after: Key | None) -> Iterator[Any]:
        if self._within is not within:
            self._within, self._statements, self._before = within, {}, ()
        if after is None:
            rows = self._next(within, (), 0)
        else:
            rows = self._beyond(replace(within, lower=None), self.ordering.key(after, nulls=within.nulls))
        return self._once(rows) if self.repeats else rows

    def take_key(self, row: Any) -> Any:
        raise NotImplementedError  # set in __init__

    def _beyond(self, within: KeyRange, after: Key) -> Iterator[Any]:
        """Yield the next rows beyond a key. If all rows of the page before had the same order value, ask for that value
        first: otherwise each page would scan all rows of that value again."""
        before, self._before = self._before, after
        shared = _in_common(before, after[:-1])
        first = self._next(within, after, shared)
        return self._by_stages(first, within, after, shared) if shared else first

    def _by_stages(self, first: Iterator[Any], within: KeyRange, after: Key, shared: int) -> Iterator[Any]:
        left = self.asked
        _, *stages = self.ordering.stages(after, shared, nulls=within.nulls)
        for row in first:
            left -= 1
            yield row
        for stage, same in zip(stages, range(shared - 1, -1, -1), strict=True):
            if left:
                for row in self._streamed(self._found(within, searched=not same).filter(stage)[:left]):
                    left -= 1
                    yield row

    def _next(self, within: KeyRange, after: Key, shared: int) -> Iterator[Any]:
        """Yield the next rows of a range, or those of them that share the first values of a key."""
        statement = self._statement(within, after, shared)
        if self.columns is None:
            return self._streamed(statement.beyond(after))
        return self._made(statement.read(after))

    def _statement(self, within: KeyRange, after: Key, shared: int) -> Statement:
        """Return the statement of these rows, which is compiled once for each number of rows."""
        name = len(after), shared, self.asked
        if name not in self._statements:
            found = self._found(within, searched=not shared)
            parts = tuple(map(Part, self.ordering.fields[-len(after) :] if after else ()))
            if after:
                found = found.filter(next(self.ordering.stages(parts, shared, nulls=within.nulls)))
            self._statements[name] = Statement(found[: self.asked], parts)
        return self._statements[name]

    def _found(self, within: KeyRange, *, searched: bool = True) -> QuerySet[Any]:
        """Return all rows of a range, in order."""
        found = self._in_order(self.with_key.filter(self.ordering.within(within, searched=searched)), within)
        return found if self.columns is None else found.values_list(*self.columns)

    def _streamed(self, found: QuerySet[Any]) -> Iterator[Any]:
        """Yield instances, made one by one."""
        rows = streamed(found, self.asked)
        return rows if self.columns is None else self._made(rows)

    def _made(self, rows: Iterable[Sequence[Any]]) -> Iterator[Any]:
        """Make instances from their columns."""
        return map(self.queryset.model.from_db, repeat(self.queryset.db), repeat(self.columns), rows)

    def _in_order(self, found: QuerySet[Any], within: KeyRange) -> QuerySet[Any]:
        return self.ordering.ordered(found, nulls=within.nulls)

    def _once(self, rows: Iterator[Any]) -> Iterator[Any]:
        """Yield rows without their repetitions, which are neighbours; a page repeats no row of the page before."""
        last = None
        for row in rows:
            key = self.take_key(row)
            if key != last:
                last = key
                yield row

    def _beyond_dropped(self, rows: Iterator[Any], within: KeyRange, after: Key | None) -> Iterator[Any]:
        """Yield the rows of a page, or of the next page whose iterable makes any instance at all."""
        while (first := next(rows, None)) is None:
            after = self.next_key(within, after, self.asked - 1)
            if after is None:
                return
            rows = self._page(within, after)
        yield first
        yield from rows

    def count(self, within: KeyRange, after: Key | None) -> int | None:
        return self._keys_left(within, after).count()

    def divide(self, within: KeyRange, after: Key | None, parts: int, rows: int) -> Sequence[KeyRange]:
        """Walk from the first row on, without a lower bound: SQLite would search each step by it, and not by its own
        key."""
        first = self.next_key(within, after)
        if first is None:
            return [within]
        keys = self._keys_left(replace(within, lower=None), None)
        return cut(within, bounds_from(first, keys, self.ordering, rows, parts, nulls=within.nulls))

    def _keys_left(self, within: KeyRange, after: Key | None) -> QuerySet[Any]:
        """Return the keys of a range beyond a key, each once."""
        conditions = self.ordering.within(within)
        if after is not None:
            conditions &= self.ordering.above(after, nulls=within.nulls)
        return keys_of(self.with_key.filter(conditions), self.ordering, nulls=within.nulls)

    def next_key(self, within: KeyRange, after: Key | None, skipped: int = 0) -> Key | None:
        keys = self._keys_left(within, after)
        key = next(iter(self._in_order(keys, within)[skipped : skipped + 1]), None)
        if key is None:
            return None
        return (None, *key) if within.nulls else tuple(key)

    def is_of_row(self, error: Exception) -> bool:
        if isinstance(error, OperationalError):
            return "Could not decode to UTF-8" in str(error)  # SQLite's driver: a column of text that is not UTF-8
        return isinstance(error, DataError) or not isinstance(error, Error)

    def find(self, key: Key) -> Any | None:
        pk = self.ordering.pk
        values = zip(pk, key[-len(pk) :], strict=True)
        return self.with_key.filter(**dict(values)).first()


def _in_common(before: Key, after: Key) -> int:
    """Return how many first values two keys share."""
    shared = 0
    for one, other in zip(before, after, strict=False):
        if one != other:
            break
        shared += 1
    return shared
