"""Ranges of equal numbers of rows. Values say little about numbers, so rows are counted, except where integers are
dense."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.db.models import Count, IntegerField, Max, Min, Q, QuerySet

from .errors import IterationRefusedError
from .ordering import Ordering
from .rows import Split
from .shard import Key, KeyRange

DENSE = 0.985
"""Share of the integers between the smallest and the largest that are keys, from which on values are as good as rows:
a range then has at most 1 / 0.985 = 1.016 times its share."""


def split(queryset: QuerySet[Any], ordering: Ordering, shards: int) -> Split:
    """Ranges by the number of rows; those without an order value are ranges of their own."""
    if ordering.field is None:
        return _split_part(queryset, ordering, shards, nulls=False)
    without = _split_part(queryset, ordering, shards, nulls=True) if ordering.nullable else Split(ranges=(), total=0)
    if not without.total:
        return _split_part(queryset, ordering, shards, nulls=False)
    valued = _keys(queryset, ordering, nulls=False).count()
    share = round(shards * without.total / (without.total + valued))
    if 0 < share < shards and len(without.ranges) > share:
        without = _split_part(queryset, ordering, share, nulls=True)
    rest = _split_part(queryset, ordering, max(shards - share, 1), nulls=False)
    return Split(ranges=(*rest.ranges, *without.ranges), total=(rest.total or 0) + (without.total or 0))


def split_by(getter: Callable[[Any, int], Any], queryset: QuerySet[Any], ordering: Ordering, shards: int) -> Split:
    """The ranges that `key_ranges_getter` gives, as they are; an open upper end is frozen at the last row there is."""
    ranges = [_frozen(each, queryset, ordering) for each in ranges_by(getter, queryset, shards)]
    if ordering.nullable:
        ranges += _split_part(queryset, ordering, 1, nulls=True).ranges
    return Split(ranges=ranges)


def ranges_by(getter: Callable[[Any, int], Any], queryset: QuerySet[Any], shards: int) -> list[KeyRange]:
    """The ranges that `key_ranges_getter` gives. Raises IterationRefusedError."""
    return [_as_range(pair) for pair in getter(queryset, shards)]


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


def _split_part(queryset: QuerySet[Any], ordering: Ordering, shards: int, *, nulls: bool) -> Split:
    keys = _keys(queryset, ordering, nulls=nulls)
    if ordering.field is None and isinstance(queryset.model._meta.pk, IntegerField) and not keys.query.distinct:
        number, least, most = keys.aggregate(n=Count("pk"), least=Min("pk"), most=Max("pk")).values()
        if number and number / (most - least + 1) >= DENSE:
            return _split_values(least, most, number, min(shards, number))
    else:
        number = keys.count()
    return _split_rows(keys, ordering, number, min(shards, number), nulls=nulls)


def _split_values(least: int, most: int, number: int, shards: int) -> Split:
    width = most - least + 1
    bounds: list[Key | None] = [None, *((least + width * index // shards,) for index in range(1, shards)), (most,)]
    return Split(ranges=_ranges(bounds, nulls=False), total=number)


def _split_rows(keys: QuerySet[Any], ordering: Ordering, number: int, shards: int, *, nulls: bool) -> Split:
    """Each bound is a step of rows beyond the one before: so much reading in all as one walk along the index."""
    if not number:
        return Split(ranges=(), total=0)
    columns = ordering.columns(nulls=nulls)
    bounds: list[Key | None] = [None]
    at, condition = 0, Q()
    for index in range(1, shards):
        offset = number * index // shards
        found = keys.filter(condition).order_by(*columns)[offset - at : offset - at + 1]
        key = next(iter(found), None)
        if key is None:  # rows were deleted meanwhile
            break
        bounds.append(tuple(key))
        at, condition = offset, ordering.at_least(tuple(key), nulls=nulls)
    bounds.append(_last(keys, ordering, nulls=nulls))
    return Split(ranges=_ranges(bounds, nulls=nulls), total=number)


def _last(keys: QuerySet[Any], ordering: Ordering, *, nulls: bool) -> Key | None:
    """The last key there is: what is inserted beyond it later is not this iteration's."""
    key = keys.order_by(*(f"-{column}" for column in ordering.columns(nulls=nulls))).first()
    return None if key is None else tuple(key)


def _ranges(bounds: list[Key | None], *, nulls: bool) -> Sequence[KeyRange]:
    last = len(bounds) - 2
    return [
        KeyRange(lower=bounds[index], upper=bounds[index + 1], closed=index == last, nulls=nulls)
        for index in range(last + 1)
    ]
