"""Key ranges for `key_ranges_getter`: half-open `[start, end)` pairs that neither overlap nor leave a gap.

None is an open end. Django is imported with the first queryset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

FIRESTORE_MAX_INT = 2**63 - 1
FIRESTORE_KEY_NAME_CHARS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
FIRESTORE_KEY_NAME_LENGTH = 20
FIREBASE_UID_LENGTH = 28
HEX_CHARS, UUID_LENGTH = "0123456789abcdef", 32
OVERSAMPLING = 32
"""Scattered keys that are read for each shard."""

Range = tuple[Any, Any]
WHOLE: tuple[Range, ...] = ((None, None),)


def between(points: Sequence[Any]) -> list[Range]:
    """Return the ranges between ascending points, open at both ends."""
    return list(pairwise([None, *points, None]))


def datastore_key_ranges(
    queryset: Any, shard_count: int, random_keys_getter: Callable[[Any, int], list[Any]] | None = None
) -> list[Range]:
    """Return ranges between keys of Datastore's sample, or of `random_keys_getter(queryset, shard_count)`."""
    if shard_count <= 1:
        return list(WHOLE)
    keys = sorted(set((random_keys_getter or find_random_keys)(queryset, shard_count)))
    if len(keys) >= shard_count:
        stride = len(keys) / shard_count
        keys = [keys[round(stride * i)] for i in range(1, shard_count)]
    return between(keys)


def find_random_keys(queryset: Any, shard_count: int) -> list[Any]:
    """Return keys from the whole kind, by Datastore's scatter property."""
    from defer_iteration.rows.datastore import scattered_keys

    return scattered_keys(queryset, shard_count * OVERSAMPLING)


def sequential_int_key_ranges(queryset: Any, shard_count: int) -> list[Range]:
    """Return even ranges from the least to the greatest integer key, for dense keys; one open range without rows."""
    keys = queryset.order_by("pk").values_list("pk", flat=True)
    least, greatest = keys.first(), keys.last()
    if least is None or greatest is None:
        return list(WHOLE)
    size = max(1, -(-(greatest - least) // max(1, shard_count)))
    starts = list(range(least, greatest, size)) or [least]
    return list(pairwise([*starts, greatest + 1]))


def firestore_scattered_int_key_ranges(queryset: Any, shard_count: int) -> list[Range]:
    """Return even ranges over the integers that Firestore gives to entities."""
    if shard_count <= 1:
        return list(WHOLE)
    step = FIRESTORE_MAX_INT // shard_count
    return between([1 + step * i for i in range(1, shard_count)])


def firestore_name_key_ranges(queryset: Any, shard_count: int) -> list[Range]:
    """Return even ranges over the names that Firestore gives to documents."""
    return string_ranges(FIRESTORE_KEY_NAME_CHARS, FIRESTORE_KEY_NAME_LENGTH, shard_count)


def firebase_uid_key_ranges(queryset: Any, shard_count: int) -> list[Range]:
    """Return even ranges over the user ids of Firebase."""
    return string_ranges(FIRESTORE_KEY_NAME_CHARS, FIREBASE_UID_LENGTH, shard_count)


def uuid_key_ranges(queryset: Any, shard_count: int) -> list[Range]:
    """Return even ranges over UUIDs written as 32 hexadecimal digits."""
    return string_ranges(HEX_CHARS, UUID_LENGTH, shard_count)


def string_ranges(characters: str, length: int, shard_count: int) -> list[Range]:
    """Return even ranges over the strings of that length."""
    if shard_count <= 1:
        return list(WHOLE)
    step = len(characters) ** length // shard_count
    return between([nth_string(characters, length, step * i) for i in range(1, shard_count)])


def nth_string(characters: str, length: int, n: int) -> str:
    """Return the n-th string of that length, from 0 in alphabetical order. Raises ValueError beyond the last."""
    ordered, result, base = sorted(characters), "", len(characters)
    if not 0 <= n < base**length:
        raise ValueError(f"There are {base**length} strings of length {length}, and {n} is not the number of one.")
    for _ in range(length):
        n, digit = divmod(n, base)
        result = ordered[digit] + result
    return result


class SampledKeyRangeGenerator:
    """A `key_ranges_getter` for a field with clustered values: ranges between the values that a sample of rows has.

    The queryset is ordered so that its first `sample_size` rows are typical of `sharding_field`.
    """

    def __init__(self, queryset: Any, sharding_field: str, sample_size: int = 1000, using: str | None = None) -> None:
        self.using = using
        self.model = queryset.model
        self.query = queryset.query
        self.sharding_field = sharding_field
        self.sample_size = sample_size

    def __call__(self, queryset: Any, shard_count: int, *args: Any, **kwargs: Any) -> list[Range]:
        return between(self._split_points(shard_count))

    def _split_points(self, shard_count: int) -> list[Any]:
        samples = self._samples()
        step = len(samples) // max(1, shard_count)
        return samples[::step] if step else samples

    def _samples(self) -> list[Any]:
        from django.db.models.query import QuerySet

        queryset: Any = QuerySet(model=self.model, query=self.query, using=self.using)
        values = queryset.values_list(self.sharding_field, flat=True)[: self.sample_size]
        return sorted({value for value in values if value is not None})


def get_stable_order(model: Any, order_field: str) -> tuple[str, ...]:
    """Return the ordering by a field, with ties broken by the key."""
    if order_field == "pk" or model._meta.get_field(order_field).unique:
        return (order_field,)
    return (order_field, "pk")


def get_batch_filter(obj: Any, order_field: str, from_next: bool = True) -> dict[str, Any]:
    """Return the filter that continues after an instance, or (`from_next=False`) at it."""
    name = "pk" if order_field in ("pk", obj._meta.pk.name) else order_field
    return {f"{name}__{'gt' if from_next else 'gte'}": getattr(obj, name, None)}


def iterate_in_chunks(queryset: Any, chunk_size: int = 1000) -> Iterator[Any]:
    """Yield the rows, a page at a time.

    An ordered or sliced queryset is streamed. Any other is paged by key: each page begins after the last key, so that
    no row is skipped when the rows before it change.
    """
    if queryset.query.is_sliced or queryset.ordered:
        yield from queryset.iterator(chunk_size=chunk_size)
        return
    rows = queryset.order_by("pk")
    page = list(rows[:chunk_size])
    while page:
        yield from page
        page = list(rows.filter(pk__gt=page[-1].pk)[:chunk_size])


_find_random_keys = find_random_keys  # the name that Djangae gave it
