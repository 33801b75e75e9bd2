"""Bounds by rows without a count beforehand: rows are counted by the walk that finds the bounds.

The walk leaves marks, keys at known ranks. Its steps begin small and double, so that there are a few marks for each
shard whatever the number of rows, and nothing rests on statistics, which may be old. The walk's end gives the number of
rows, and each bound is then looked up from the mark before it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from django.db.models import QuerySet

from ..model.shard import Key
from .ordering import Ordering
from .walk import look_up, steps

FIRST = 512
"""How many rows the first steps of the walk have."""
A_SHARD = 4
"""How many steps of each length there are for a shard: the longest are about a quarter of a shard, or less."""


@dataclass(frozen=True, kw_only=True)
class Marks:
    """Some keys of the rows, in order."""

    keys: list[Key]
    ranks: list[int]
    """How many rows are before each key."""


def marked(keys: QuerySet[Any], ordering: Ordering, shards: int) -> Marks:
    """Return marks from the first row to the end; none if there are no rows."""
    found = steps(keys, ordering, 0, 1, None, nulls=False)
    ranks, size, number = [0] * len(found), FIRST, A_SHARD * shards
    while found:
        run = steps(keys, ordering, size, number, found[-1], nulls=False)
        ranks += range(ranks[-1] + size, ranks[-1] + size * len(run) + 1, size)
        found += run
        if len(run) < number:
            break
        size *= 2
    return Marks(keys=found, ranks=ranks)


def at_ranks(keys: QuerySet[Any], ordering: Ordering, marks: Marks, last: Key, ranks: Iterable[int]) -> list[Key]:
    """Return the keys at ascending ranks. Each is looked for up to the next mark only: if rows are deleted meanwhile,
    one may be missing, but none is beyond its successor."""
    wanted, edges = [], [*marks.keys, last]
    for rank in ranks:
        at = bisect_right(marks.ranks, rank) - 1
        wanted.append((edges[at], edges[at + 1], rank - marks.ranks[at]))
    return [key for key, _ in groupby(look_up(keys, ordering, wanted))]
