"""The rows of a queryset on Datastore, seen as a Django database by `gcloudc`.

Counting rows is expensive there. By primary key, ranges come from Datastore's own sample (`__scatter__`, about one
entity in 512): with SAMPLES keys a shard, the largest of 16 shards has about 1.3 times its share, of 256 about 1.6
times, at the cost of that many small reads. The sample is of the whole kind, whatever the queryset filters. Without a
sample, and in the order of a field, one walk reads every key, and the shards are equal to within 1 / SAMPLES.

A query there compares one property. So ranges in the order of a field consist of values alone, rows of one value stay
together, and a page begins with the value of the last row: rows that were passed already are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, ClassVar

from django.db import NotSupportedError, connections
from django.db.models import QuerySet

from ..errors import HeldError
from ..model.shard import Key, KeyRange, cut
from .base import KeyRangesGetter, Split
from .queryset import QuerySetRows
from .split import ranges_between, ranges_by

SAMPLES = 32
"""How many keys are read for one bound."""
LIMIT = 1_000
"""The most rows of a page: `gcloudc` fetches all rows of a query before it yields the first."""
WALK = 10_000
"""Keys of a page."""
FEW = 10_000
"""A shard is divided if at most so many rows are left."""


class DatastoreRows(QuerySetRows):
    """A queryset on Datastore, in the order of a field."""

    in_sql: ClassVar[bool] = False

    def __init__(
        self, queryset: QuerySet[Any], order_field: str = "pk", key_ranges_getter: KeyRangesGetter | None = None
    ) -> None:
        if queryset.query.deferred_loading[0] and order_field != "pk":
            queryset = queryset.defer(None)  # a property that is left out may be the one that orders
        super().__init__(queryset, order_field, key_ranges_getter)
        self.limit = self.asked = min(self.limit, LIMIT)
        self.page_size = (
            1 if self.ordering.field or self.repeats else self.limit
        )  # any page may be short of the rows that were dropped

    @property
    def can_be_cut_anywhere(self) -> bool:
        return self.ordering.field is None

    def split(self, shards: int) -> Split:
        """Return at most `shards` ranges, and one of the rows without a value. An open end of `key_ranges_getter` stays
        open, because no index finds the last key. Raise HeldError for a query that Datastore refuses."""
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
        found = self._found(within)
        if after is None:
            return iter(found[: self.asked])
        return iter(self._beyond_value(found, self.ordering.field, after))

    def _next(self, within: KeyRange, after: Key, shared: int) -> Iterator[Any]:
        found = self._found(within)
        if after:
            found = found.filter(self.ordering.above(after, nulls=within.nulls))
        return self._streamed(found[: self.asked])

    def is_of_row(self, error: Exception) -> bool:
        return not type(error).__module__.startswith(("google.", "grpc.")) and super().is_of_row(error)

    def _beyond_value(self, found: QuerySet[Any], field: str, after: Key) -> list[Any]:
        """Return the next rows beyond the row of a key. Read more while a whole page has its value."""
        value, pk = after
        found, limit = found.filter(**{f"{field}__gte": value}), self.asked
        while True:
            rows = list(found[:limit])
            keys = ((row, self.key(self.take_key(row))) for row in rows)
            beyond = [row for row, key in keys if key[0] != value or key[1] > pk]
            if beyond or len(rows) < limit:
                return beyond
            limit *= 2

    def _in_order(self, found: QuerySet[Any], within: KeyRange) -> QuerySet[Any]:
        """Order by the value alone: rows of one value are in key order anyway, and asking for it needs an index."""
        return found.order_by(self.ordering.columns(nulls=within.nulls)[0])

    # --- division -----------------------------------------------------------------------------------------------------

    def count(self, within: KeyRange, after: Key | None) -> int | None:
        """Return None if more than FEW rows are left, because each is read."""
        number = len(self._bounds_left(within, after))
        return number if number <= FEW else None

    def divide(self, within: KeyRange, after: Key | None, parts: int, rows: int) -> Sequence[KeyRange]:
        keys = self._bounds_left(within, after)
        bounds = dict.fromkeys(keys[len(keys) * part // parts] for part in range(1, parts) if keys)
        return cut(within, [each for each in bounds if each != keys[0]])  # rows of one value stay together

    def divide_at(self, within: KeyRange, after: Key) -> Sequence[KeyRange]:
        if self.ordering.field is None or within.nulls:
            return super().divide_at(within, after)
        beyond = (bound for bound in self._bounds_beyond(within, after) if bound != after[:1])
        return cut(within, [bound for bound in [next(beyond, None)] if bound is not None])

    def _bounds_left(self, within: KeyRange, after: Key | None) -> list[Key]:
        """Return a bound that begins with each row of a range beyond a key, for FEW + 1 rows at most."""
        if self.ordering.field is None or within.nulls:
            found = self._in_order(self._keys_left(within, after), within)
            return [tuple(key) for key in found[: FEW + 1]]
        return list(islice(self._bounds_beyond(within, after), FEW + 1))

    def _bounds_beyond(self, within: KeyRange, after: Key | None) -> Iterator[Key]:
        """Yield the order value of each row of a range beyond a key."""
        self.ask_for(self.limit)
        while keys := [self.key(self.take_key(row)) for row in self.page(within, after)]:
            yield from (key[:1] for key in keys)
            after = keys[-1]

    # --- splits -------------------------------------------------------------------------------------------------------

    def _without_value(self) -> list[KeyRange]:
        """Return one range of the rows without an order value, if there are any."""
        if self.ordering.field is None or not self.ordering.nullable:
            return []
        found = KeyRange(nulls=True)
        return [found] if self._found(found)[:1] else []

    def _split_sampled(self, shards: int) -> Split | None:
        """Return ranges by Datastore's own sample, or None if the sample is too small."""
        if self.ordering.field is not None:
            return None
        sample = sorted((pk,) for pk in scattered_keys(self.queryset, shards * SAMPLES))
        if len(sample) < shards * SAMPLES // 2:
            return None
        last = max(self._keys(sample[-1]), default=sample[-1])
        bounds = [sample[len(sample) * index // shards] for index in range(1, shards)]
        return Split(ranges=ranges_between(list(dict.fromkeys(bounds)), last))

    def _split_walked(self, shards: int) -> Split:
        """Return ranges by every n-th key of a walk over all keys, where n doubles whenever too many were kept."""
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
        distinct = [each for each in dict.fromkeys(bounds) if each != kept[0]]
        return Split(ranges=ranges_between(distinct, last), total=number)

    def _keys(self, after: Key | None) -> Iterator[Key]:
        """Yield all keys beyond one, in order: primary keys, or the order values alone."""
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


def scattered_keys(queryset: QuerySet[Any], number: int) -> list[Any]:
    """Return at most `number` primary keys of Datastore's own sample of a queryset's whole kind, in no order.

    `order_by(Scatter())` of `gcloudc` 1.5 reads and sorts the whole kind instead, and by another property.
    """
    connection: Any = connections[queryset.db]
    model = queryset.model
    kind = [model, *model._meta.get_parent_list()][-1]._meta.db_table
    query = connection.get_query_class()(connection, [kind], only_return_keys=True, namespace=connection.namespace)
    query.order_by(["__scatter__"])
    return [model._meta.pk.to_python(each.key().id_or_name) for each in query.fetch(offset=0, limit=number)]
