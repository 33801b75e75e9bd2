"""Ranges where rows are not counted cheaply: Datastore, seen as a Django database by `gcloudc`.

By primary key, Datastore's own sample (`__scatter__`, about one entity in 512) is taken: SAMPLES keys a shard give
shards within about a fifth of each other, at the cost of that many small reads. It is of the whole kind, whatever the
queryset filters. Where there is no such sample, one walk over the keys is taken instead: every key is read, and the
shards are equal to within 1 / SAMPLES.
"""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from .ordering import Ordering
from .rows import Split
from .shard import Key, KeyRange

SAMPLES = 32
"""Keys that are looked at for one bound."""


def split_sampled(queryset: QuerySet[Any], ordering: Ordering, shards: int) -> Split:
    """At most `shards` ranges. Rows without an order value, which sort first there, are in the first."""
    sample = _scattered(queryset, shards) if ordering.field is None else []
    if len(sample) >= shards * SAMPLES // 2:
        bounds = [sample[len(sample) * index // shards] for index in range(1, shards)]
        return Split(ranges=_ranges(bounds, _last(queryset, ordering)))
    walked, number = _walked(queryset, ordering, shards * SAMPLES)
    if not walked:
        return Split(ranges=(), total=0)
    parts = min(shards, number)
    bounds = [walked[len(walked) * index // parts] for index in range(1, parts)]
    return Split(ranges=_ranges(bounds, _last(queryset, ordering)), total=number)


def _scattered(queryset: QuerySet[Any], shards: int) -> list[Key]:
    """Keys of Datastore's sample, in order."""
    from gcloudc.db.backends.common.parsers.expressions import Scatter

    kind = queryset.model._base_manager.using(queryset.db)
    return sorted((key,) for key in kind.order_by(Scatter()).values_list("pk", flat=True)[: shards * SAMPLES])


def _walked(queryset: QuerySet[Any], ordering: Ordering, most: int) -> tuple[list[Key], int]:
    """Every so-manieth key of a walk over all, `most` to twice as many if there are enough; and how many there are."""
    columns = ordering.columns()
    kept: list[Key] = []
    stride, number = 1, 0
    for key in queryset.order_by(*columns).values_list(*columns).iterator():
        if number % stride == 0:
            kept.append(tuple(key))
        number += 1
        if len(kept) >= 2 * most:
            kept, stride = kept[::2], stride * 2
    return kept, number


def _last(queryset: QuerySet[Any], ordering: Ordering) -> Key | None:
    columns = ordering.columns()
    last = queryset.order_by(*(f"-{each}" for each in columns)).values_list(*columns).first()
    return None if last is None else tuple(last)


def _ranges(bounds: list[Key], last: Key | None) -> list[KeyRange]:
    edges = [None, *bounds, last]
    return [
        KeyRange(lower=edges[index], upper=edges[index + 1], closed=index == len(bounds))
        for index in range(len(edges) - 1)
    ]
