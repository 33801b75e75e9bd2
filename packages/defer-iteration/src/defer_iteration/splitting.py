"""Ranges of equal numbers of rows. Values say little about numbers, so rows are counted: by the walk that finds the
bounds where one statement can walk, else beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from math import ceil, floor
from typing import Any

from django.db import connections
from django.db.models import QuerySet

from .errors import IterationRefusedError
from .marks import at_ranks, marked
from .ordering import Ordering
from .rows import Split
from .shard import Key, KeyRange
from .steps import RECURSIVE, steps


def split(queryset: QuerySet[Any], ordering: Ordering, shards: int) -> Split:
    """At most so many ranges by the number of rows. Those without an order value are ranges of their own: one more, so
    that none is larger for it."""
    valued, without = _keys(queryset, ordering, nulls=False), _keys(queryset, ordering, nulls=True)
    if not ordering.nullable:
        return _split_part(valued, ordering, shards)
    number, missing = valued.count(), without.count()
    share = shards * missing / ((number + missing) or 1)
    ranges = _split_rows(valued, ordering, number, shards - floor(share))
    ranges += _split_rows(without, ordering, missing, ceil(share), nulls=True)
    return Split(ranges=ranges, total=number + missing)


def split_by(getter: Callable[[Any, int], Any], queryset: QuerySet[Any], ordering: Ordering, shards: int) -> Split:
    """The ranges that `key_ranges_getter` gives, as they are; an open upper end is frozen at the last row there is."""
    ranges = [_frozen(each, queryset, ordering) for each in ranges_by(getter, queryset, shards)]
    if ordering.nullable:
        without = _keys(queryset, ordering, nulls=True)
        ranges += _split_rows(without, ordering, without.count(), 1, nulls=True)
    return Split(ranges=ranges)


def ranges_by(getter: Callable[[Any, int], Any], queryset: QuerySet[Any], shards: int) -> list[KeyRange]:
    """The ranges that `key_ranges_getter` gives. Raises IterationRefusedError."""
    pairs = getter(queryset, shards)
    if not isinstance(pairs, Iterable):
        raise IterationRefusedError(f"key_ranges_getter gave {pairs!r}, which is no list of (start, end) pairs.")
    return [_as_range(pair) for pair in pairs]


def _as_range(pair: Any) -> KeyRange:
    try:
        start, end = pair
    except (TypeError, ValueError) as error:
        raise IterationRefusedError(f"key_ranges_getter gave {pair!r}, which is no (start, end) pair.") from error
    return KeyRange(lower=None if start is None else (start,), upper=None if end is None else (end,))


def _frozen(found: KeyRange, queryset: QuerySet[Any], ordering: Ordering) -> KeyRange:
    """The range up to the last row there is, where its end is open."""
    if found.upper is not None:
        return found
    last = _last(_keys(queryset, ordering, nulls=False), ordering, nulls=False)
    return KeyRange(lower=found.lower, upper=last, closed=True)


def _keys(queryset: QuerySet[Any], ordering: Ordering, *, nulls: bool) -> QuerySet[Any]:
    """The keys of rows with (without) an order value, each once."""
    keys = queryset.select_related(None).prefetch_related(None).order_by()
    if ordering.nullable:
        keys = keys.filter(**{f"{ordering.field}__isnull": nulls})
    values = keys.values_list(*ordering.columns(nulls=nulls))
    return values.distinct() if repeats_rows(queryset) else values


def repeats_rows(queryset: QuerySet[Any]) -> bool:
    """Whether a join may yield a row several times."""
    joins = queryset.query.alias_map.values()
    return any(getattr(each, "join_field", None) is not None and _is_multiple(each.join_field) for each in joins)


def _is_multiple(join_field: Any) -> bool:
    """Whether a join goes from one row to many."""
    return bool(getattr(join_field, "one_to_many", False) or getattr(join_field, "many_to_many", False))


def _split_part(keys: QuerySet[Any], ordering: Ordering, shards: int) -> Split:
    if ordering.field is not None or connections[keys.db].vendor not in RECURSIVE:
        number = keys.count()
        return Split(ranges=_split_rows(keys, ordering, number, shards), total=number)
    marks, last = marked(keys, ordering, shards), _last(keys, ordering, nulls=False)
    if last is None or not marks.keys:
        return Split(ranges=[], total=0)
    number = marks.ranks[-1] + keys.filter(ordering.at_least(marks.keys[-1])).count()
    shards = min(shards, number)
    ranks = (number * index // shards for index in range(1, shards))
    return Split(ranges=_ranges(at_ranks(keys, ordering, marks, last, ranks), last), total=number)


def _split_rows(
    keys: QuerySet[Any], ordering: Ordering, number: int, shards: int, *, nulls: bool = False
) -> list[KeyRange]:
    """Shards of a size, after as many as are left over with one row more."""
    if not number:
        return []
    shards = min(shards, number)
    size, larger = divmod(number, shards)
    bounds = steps(keys, ordering, size + 1, min(larger, shards - 1), None, nulls=nulls)
    bounds += steps(keys, ordering, size, shards - 1 - len(bounds), bounds[-1] if bounds else None, nulls=nulls)
    return _ranges(bounds, _last(keys, ordering, nulls=nulls), nulls=nulls)


def _last(keys: QuerySet[Any], ordering: Ordering, *, nulls: bool) -> Key | None:
    """The last key there is: what is inserted beyond it later is not this iteration's."""
    key = keys.order_by(*(f"-{column}" for column in ordering.columns(nulls=nulls))).first()
    return None if key is None else tuple(key)


def _ranges(bounds: list[Key], last: Key | None, *, nulls: bool = False) -> list[KeyRange]:
    """Half-open ranges between bounds; the last is closed."""
    edges: list[Key | None] = [None, *bounds, last]
    return [
        KeyRange(lower=lower, upper=upper, closed=index == len(bounds), nulls=nulls)
        for index, (lower, upper) in enumerate(pairwise(edges))
    ]
