"""The rows of a queryset on Datastore, seen as a Django database by `gcloudc`.

Rows are not counted cheaply there. By primary key, Datastore's own sample (`__scatter__`, about one entity in 512) is
taken: with SAMPLES keys a shard the largest of 16 shards has about 1.3 times its share, of 256 about 1.6 times, at the
cost of that many small reads. It is of the whole kind, whatever the queryset filters. Where there is no such sample,
and in the order of a field, one walk over the keys is taken instead: every one is read, and the shards are equal to
within 1 / SAMPLES.

A query there compares one property. So ranges in the order of a field are of values alone, rows of one value stay
together, and a page begins with the value of the last row: what has been passed already is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import Any, ClassVar

from django.db import NotSupportedError, connections
from django.db.models import QuerySet

from .errors import HeldError
from .job import KeyRangesGetter
from .queryset_rows import QuerySetRows
from .rows import Split
from .shard import Key, KeyRange
from .splitting import ranges_by

SAMPLES = 32
"""Keys that are looked at for one bound."""
LIMIT = 1_000
"""Rows of a page, for `gcloudc` fetches all of a query before it gives the first."""
WALK = 10_000
"""Keys of a page."""


class DatastoreRows(QuerySetRows):
    """A queryset on Datastore, in the order of a field."""

    in_sql: ClassVar[bool] = False

    def __init__(
        self, queryset: QuerySet[Any], order_field: str = "pk", key_ranges_getter: KeyRangesGetter | None = None
    ) -> None:
        super().__init__(queryset, order_field, key_ranges_getter)
        self.limit = min(self.limit, LIMIT)
        self.page_size = 1 if self.ordering.field or self.repeats else self.limit  # dropped rows make any page short

    def _with_value(self) -> tuple[QuerySet[Any], attrgetter[Any]]:
        """All properties are read where the caller has left some out: one that orders has to be there."""
        if self.ordering.field is not None and self.queryset.query.deferred_loading[0]:
            self.queryset = self.queryset.defer(None)
        return super()._with_value()

    def split(self, shards: int) -> Split:
        """At most `shards` ranges, and one of the rows without a value. An open end of `key_ranges_getter` stays open:
        the last key is no index's. Raises HeldError for what Datastore cannot be asked."""
        try:
            without = self._without_value()
            if self.key_ranges_getter is not None:
                return Split(ranges=[*ranges_by(self.key_ranges_getter, self.queryset, shards), *without])
            found = self._split_sampled(shards) or self._split_walked(shards)
        except NotSupportedError as error:
            raise HeldError(
                f"Datastore cannot walk this queryset: {error} Filter in the callback instead, or give as order_field "
                "the field that the queryset compares; then cancel() and start again."
            ) from error
        return Split(ranges=[*found.ranges, *without], total=None if without else found.total)

    def page(self, within: KeyRange, after: Key | None) -> Iterator[Any]:
        if self.ordering.field is None or within.nulls:
            return super().page(within, after)
        found = self._range(within)
        return iter(found[: self.limit] if after is None else self._beyond(found, self.ordering.field, after))

    def _beyond(self, found: QuerySet[Any], field: str, after: Key) -> list[Any]:
        """The next rows beyond the row of a key; more are read where a whole page has its value."""
        value, pk = after
        found, limit = found.filter(**{f"{field}__gte": value}), self.limit
        while True:
            rows = list(found[:limit])
            keys = ((row, self.key(self.take_key(row))) for row in rows)
            beyond = [row for row, key in keys if key[0] != value or key[1] > pk]
            if beyond or len(rows) < limit:
                return beyond
            limit *= 2

    def _columns(self, within: KeyRange) -> tuple[str, ...]:
        """Rows of one value are in the order of their keys by themselves; to say so would need another index."""
        return self.ordering.columns(nulls=within.nulls)[:1]

    # --- splits -------------------------------------------------------------------------------------------------------

    def _without_value(self) -> list[KeyRange]:
        """One range of the rows without an order value, if there are any."""
        if self.ordering.field is None or not self.ordering.nullable:
            return []
        found = KeyRange(nulls=True)
        return [found] if self._range(found)[:1] else []

    def _split_sampled(self, shards: int) -> Split | None:
        """Ranges by Datastore's own sample; None where there is too little of it."""
        if self.ordering.field is not None:
            return None
        sample = sorted((pk,) for pk in scattered_keys(self.queryset, shards * SAMPLES))
        if len(sample) < shards * SAMPLES // 2:
            return None
        last = max(self._keys(sample[-1]), default=sample[-1])
        bounds = [sample[len(sample) * index // shards] for index in range(1, shards)]
        return Split(ranges=_ranges(bounds, last))

    def _split_walked(self, shards: int) -> Split:
        """Ranges by every so-manieth key of a walk over all: SAMPLES a shard, to twice as many."""
        kept: list[Key] = []
        stride, number, last = 1, 0, None
        for key in self._keys(None):
            if number % stride == 0:
                kept.append(key)
            number, last = number + 1, key
            if len(kept) >= 2 * shards * SAMPLES:
                kept, stride = kept[::2], stride * 2
        if last is None:
            return Split(ranges=(), total=0)
        parts = min(shards, number)
        bounds = [kept[len(kept) * index // parts] for index in range(1, parts)]
        return Split(ranges=_ranges([each for each in bounds if each != kept[0]], last), total=number)

    def _keys(self, after: Key | None) -> Iterator[Key]:
        """All keys beyond one, in order: those of rows by primary key, else as bounds, the values alone."""
        more = True
        while more:
            more = False
            for key in self._page_of_keys(after):
                more, after = True, key
                yield key[:1]

    def _page_of_keys(self, after: Key | None) -> Iterator[Key]:
        if self.ordering.field is not None:
            return (self.key(self.take_key(row)) for row in self.page(KeyRange(), after))
        found = self.queryset if after is None else self.queryset.filter(pk__gt=after[0])
        return ((pk,) for pk in found.order_by("pk").values_list("pk", flat=True)[:WALK])


def _ranges(bounds: list[Key], last: Key) -> list[KeyRange]:
    """Half-open ranges between bounds, of which some may be the same; the last is closed."""
    edges: list[Key | None] = [None, *dict.fromkeys(bounds), last]
    final = len(edges) - 2
    return [KeyRange(lower=edges[index], upper=edges[index + 1], closed=index == final) for index in range(final + 1)]


def scattered_keys(queryset: QuerySet[Any], number: int) -> list[Any]:
    """So many primary keys of Datastore's own sample of a queryset's whole kind, in no order.

    `order_by(Scatter())` of `gcloudc` 1.5 reads and sorts the whole kind instead, and not by that property.
    """
    connection: Any = connections[queryset.db]
    model = queryset.model
    kind = [model, *model._meta.get_parent_list()][-1]._meta.db_table
    query = connection.get_query_class()(connection, [kind], only_return_keys=True, namespace=connection.namespace)
    query.order_by(["__scatter__"])
    return [model._meta.pk.to_python(each.key().id_or_name) for each in query.fetch(offset=0, limit=number)]
