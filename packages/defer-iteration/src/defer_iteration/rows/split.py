"""Ranges of equal numbers of rows. Rows are counted, because their values say little about their number: by the walk
that finds the bounds if one statement can walk, else beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from math import ceil, floor
from typing import Any

from django.db.models import QuerySet

from ..errors import IterationRefusedError
from ..model.shard import Key, KeyRange
from .base import Split
from .expressions import repeats_rows
from .marks import at_ranks, marked
from .ordering import Ordering
from .walk import at_once, steps


def split(queryset: QuerySet[Any], ordering: Ordering, shards: int) -> Split:
    """Return at most `shards` ranges by the number of rows. Rows without an order value have ranges of their own, one
    more in all, so that no range is larger because of them."""
    valued, without = keys_of(queryset, ordering, nulls=False), keys_of(queryset, ordering, nulls=True)
    if not ordering.nullable:
        return _split_part(valued, ordering, shards)
    number, missing = valued.count(), without.count()
    share = shards * missing / ((number + missing) or 1)
    ranges = _split_rows(valued, ordering, number, shards - floor(share))
    ranges += _split_rows(without, ordering, missing, ceil(share), nulls=True)
    return Split(ranges=ranges, total=number + missing)


def split_by(given: Iterable[KeyRange], queryset: QuerySet[Any], ordering: Ordering) -> Split:
    """Return the given ranges. An open upper end is fixed at the last row there is."""
    valued = keys_of(queryset, ordering, nulls=False)
    found = (_by_keys(each, valued, ordering) for each in given)
    ranges = [_frozen(each, valued, ordering) for each in found if each is not None]
    if ordering.nullable:
        without = keys_of(queryset, ordering, nulls=True)
        ranges += _split_rows(without, ordering, without.count(), 1, nulls=True)
    return Split(ranges=ranges)


def ranges_by(getter: Callable[[Any, int], Any], queryset: QuerySet[Any], shards: int) -> list[KeyRange]:
    """Return the ranges of a `key_ranges_getter`. Raise IterationRefusedError."""
    pairs = getter(queryset, shards)
    if not isinstance(pairs, Iterable):
        raise IterationRefusedError(f"key_ranges_getter gave {pairs!r}, which is not a list of (start, end) pairs.")
    return [_as_range(pair) for pair in pairs]


def _as_range(pair: Any) -> KeyRange:
    try:
        start, end = pair
    except (TypeError, ValueError) as error:
        raise IterationRefusedError(f"key_ranges_getter gave {pair!r}, which is not a (start, end) pair.") from error
    return KeyRange(lower=_as_key(start), upper=_as_key(end))


def _as_key(bound: Any) -> Key | None:
    """Return a bound as a key. A tuple is a composite key, or the beginning of one."""
    if bound is None or isinstance(bound, tuple):
        return bound
    return (bound,)


def _by_keys(given: KeyRange, keys: QuerySet[Any], ordering: Ordering) -> KeyRange | None:
    """Return a range between keys of rows, if the caller's values are not those that the database compares: each bound
    is the first key that is not below it. Return None if no row is in the range."""
    if ordering.bounds is None:
        return given
    lower, upper = (
        each and _first(keys.filter(**{f"{ordering.bounds}__gte": each[0]}), ordering)
        for each in (given.lower, given.upper)
    )
    return None if given.lower is not None and lower is None else KeyRange(lower=lower, upper=upper)


def _frozen(found: KeyRange, keys: QuerySet[Any], ordering: Ordering) -> KeyRange:
    """Return the range, up to the last row there is if its end is open."""
    if found.upper is not None:
        return found
    return KeyRange(lower=found.lower, upper=_last(keys, ordering, nulls=False), closed=True)


def keys_of(queryset: QuerySet[Any], ordering: Ordering, *, nulls: bool) -> QuerySet[Any]:
    """Return the keys of rows with an order value, or of those without (`nulls`), each once."""
    keys = queryset.select_related(None).prefetch_related(None).order_by()
    if ordering.nullable:
        keys = keys.filter(**{f"{ordering.field}__isnull": nulls})
    values = keys.values_list(*ordering.columns(nulls=nulls))
    return values.distinct() if repeats_rows(queryset.query) else values


def _split_part(keys: QuerySet[Any], ordering: Ordering, shards: int) -> Split:
    if ordering.valued or not at_once(keys, ordering):
        number = keys.count()
        return Split(ranges=_split_rows(keys, ordering, number, shards), total=number)
    marks, last = marked(keys, ordering, shards), _last(keys, ordering, nulls=False)
    if last is None or not marks.keys:
        return Split(ranges=[], total=0)
    number = marks.ranks[-1] + keys.filter(ordering.at_least(marks.keys[-1])).count()
    shards = min(shards, number)
    ranks = (number * index // shards for index in range(1, shards))
    bounds = at_ranks(keys, ordering, marks, last, ranks)
    return Split(ranges=ranges_between(bounds, last), total=number)


def _split_rows(
    keys: QuerySet[Any], ordering: Ordering, number: int, shards: int, *, nulls: bool = False
) -> list[KeyRange]:
    """Return ranges of one size; the remainder is one row more in each of the first ones."""
    if not number:
        return []
    shards = min(shards, number)
    bounds = bounds_from(None, keys, ordering, number, shards, nulls=nulls)
    return ranges_between(bounds, _last(keys, ordering, nulls=nulls), nulls=nulls)


def bounds_from(
    start: Key | None, keys: QuerySet[Any], ordering: Ordering, number: int, parts: int, *, nulls: bool
) -> list[Key]:
    """Return the bounds between parts of one size of `number` rows from a key on."""
    size, larger = divmod(number, parts)
    bounds = steps(keys, ordering, size + 1, min(larger, parts - 1), start, nulls=nulls)
    start = bounds[-1] if bounds else start
    return bounds + steps(keys, ordering, size, parts - 1 - len(bounds), start, nulls=nulls)


def _last(keys: QuerySet[Any], ordering: Ordering, *, nulls: bool) -> Key | None:
    """Return the last key there is: rows inserted beyond it later do not belong to the iteration."""
    key = ordering.ordered(keys, nulls=nulls, last=True).first()
    return None if key is None else tuple(key)


def _first(keys: QuerySet[Any], ordering: Ordering) -> Key | None:
    key = ordering.ordered(keys).first()
    return None if key is None else tuple(key)


def ranges_between(bounds: list[Key], last: Key | None, *, nulls: bool = False) -> list[KeyRange]:
    """Return half-open ranges between bounds; the last range is closed."""
    edges: list[Key | None] = [None, *bounds, last]
    return [
        KeyRange(lower=lower, upper=upper, closed=index == len(bounds), nulls=nulls)
        for index, (lower, upper) in enumerate(pairwise(edges))
    ]
