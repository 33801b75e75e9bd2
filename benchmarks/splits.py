"""Ranges by rows beside bounds by least and greatest key: how large the largest shard is, and what the split costs.

Balance is the largest shard beside an equal share of the rows; time is a share of what a bare `iterator()` over the
same rows takes. `python -m benchmarks.splits SQLite --rows 200000` measures one database.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from ._figures import Figure
from ._tables import DATABASES, DIGITS, UUIDS, database, filled, in_own_process, set_up

ROWS = 1_000_000
SHARDS = (16, 64, 256)
ROUNDS = 3


def rows() -> list[Figure]:
    """All figures."""
    return [figure for name in DATABASES for figure in in_own_process(measured, name, ROWS)]


def measured(name: str, size: int) -> list[Figure]:
    """The figures of one database."""
    with database(name) as settings:
        set_up(settings)
        return [
            figure
            for what, queryset, share in distributions(size)
            for figure in split_up(f"{name}, {what}", queryset, share)
        ]


def distributions(size: int) -> Iterator[tuple[str, Any, float]]:
    """The five, and one more under a filter that no index helps: rows, and the share of a bare walk as the goal."""
    from django.db import connection

    tail = size // 10
    yield "dense", filled("Plain", size, "i + 1"), 0.02
    # 90 % of the rows in the last 1 % of the range
    skewed = f"CASE WHEN i < {tail} THEN i * 9900 ELSE {990 * size} + (i - {tail}) * 11 END"
    yield "skewed", filled("Plain", size, skewed), 0.02
    sparse = filled("Plain", size, "i * 20 + (i * 7919 + i / 20) % 20")
    yield "sparse", sparse, 0.02
    yield "sparse, half of it filtered out", sparse.filter(number=1), 0.07
    yield "UUID", filled("Random", size, UUIDS[connection.vendor]), 0.02
    yield "strings", filled("Text", size, f"'customers/europe/' || {DIGITS[connection.vendor]}"), 0.02


def split_up(what: str, queryset: Any, share: float) -> Iterator[Figure]:
    """Balance and time by number of shards."""
    from defer_iteration.rows.queryset import QuerySetRows

    number = queryset.count()
    floor = statistics.median(seconds(lambda: walk(queryset)) for _ in range(ROUNDS))
    for shards in SHARDS:
        rows = QuerySetRows(queryset)
        took = statistics.median(seconds(lambda rows=rows, n=shards: rows.split(n)) for _ in range(ROUNDS))
        sizes = [queryset.filter(rows.ordering.within(each)).count() for each in rows.split(shards).ranges]
        assert sum(sizes) == number, "a row is in no shard, or in two"
        balance, theirs = max(sizes) * shards / number, by_values(queryset, shards) * shards / number
        yield (
            f"split, {what}, {shards}: balance",
            f"{theirs:.2f}" if theirs else "-",
            f"{balance:.3f}",
            balance,
            "≤ 1.02",
        )
        yield f"split, {what}, {shards}: time", f"{floor:.2f} s", f"{took * 1e3:.0f} ms", took / floor, f"≤ {share}"


def walk(queryset: Any) -> None:
    for _ in queryset.iterator():
        pass


def by_values(queryset: Any, shards: int) -> int:
    """The largest shard of a split by least and greatest key, as Djangae's is; 0 where keys are no numbers."""
    from django.db.models import IntegerField, Max, Min

    if not isinstance(queryset.model._meta.pk, IntegerField):
        return 0
    least, most = queryset.aggregate(least=Min("pk"), most=Max("pk")).values()
    edges = [least + (most - least + 1) * index // shards for index in range(shards + 1)]
    return max(queryset.filter(pk__gte=low, pk__lt=high).count() for low, high in pairwise(edges))


def seconds(func: Any) -> float:
    began = time.perf_counter()
    func()
    return time.perf_counter() - began


if __name__ == "__main__":
    from .__main__ import line

    parser = argparse.ArgumentParser(prog="python -m benchmarks.splits", description=__doc__)
    parser.add_argument("database", choices=DATABASES)
    parser.add_argument("--rows", type=int, default=ROWS)
    given = parser.parse_args()
    for figure in in_own_process(measured, given.database, given.rows):
        print("  ".join(line(figure)), flush=True)
