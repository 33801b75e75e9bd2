"""`_batch` beside the same work row by row: `count += 1` on every row of a table.

All of it is measured: the call, the plan, the shard with its checkpoints, finalize. Times are medians of rounds in turn
(A B A B); the ratio, within the round, is how many times as fast a batch is. What Django's own `bulk_update` takes sets
its pace, so that it is also beside a bare loop of it. `python -m benchmarks.batches PostgreSQL
--rows 20000` measures one database.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

from ._figures import Figure
from ._tables import DATABASES, database, filled, in_own_process, set_up
from .iteration import beside, finalize, in_turn, ratio

ROWS = 5_000
ROUNDS = 3
BATCH = 500
GOALS = {"filter().update()": "≥ 10", "upsert": "≥ 5"}
"""How many times as fast as row by row, on PostgreSQL."""


def save(order: Any) -> None:
    """Row by row."""
    order.count += 1
    order.save(update_fields=["count"])


def bulk_update(orders: list[Any]) -> None:
    """One statement a batch, with a value for each row."""
    for order in orders:
        order.count += 1
    type(orders[0]).objects.bulk_update(orders, ["count"])


def upsert(orders: list[Any]) -> None:
    """One statement a batch, with a value for each row; a row that is gone meanwhile is made again."""
    for order in orders:
        order.count += 1
    type(orders[0]).objects.bulk_create(orders, update_conflicts=True, unique_fields=["id"], update_fields=["count"])


def update(orders: list[Any]) -> None:
    """One statement a batch, that computes all values."""
    from django.db.models import F

    type(orders[0]).objects.filter(pk__in=[order.pk for order in orders]).update(count=F("count") + 1)


def bare(queryset: Any) -> None:
    """The loop without us: pages by key, and a `bulk_update` of each."""
    last = 0
    while orders := list(queryset.filter(pk__gt=last).order_by("pk")[:BATCH]):
        bulk_update(orders)
        last = orders[-1].pk


def walk(callback: Callable[..., None], options: dict[str, Any], queryset: Any) -> None:
    """The whole iteration, with its deliveries in this process."""
    from defer_core.testing import drain, in_memory
    from defer_iteration import defer_iteration_with_finalize

    with in_memory(store="django") as queue:
        defer_iteration_with_finalize(queryset, callback, finalize, _shards=1, **options)
        drain(queue)


def rows() -> list[Figure]:
    """All figures."""
    return [figure for name in DATABASES for figure in in_own_process(measured, name, ROWS)]


def measured(name: str, size: int) -> list[Figure]:
    """The figures of one database."""
    with database(name) as settings:
        set_up(settings)
        queryset = filled("Plain", size, "i + 1")
        return [figure for atomic in (False, True) for figure in all_ways(name, queryset, size, atomic=atomic)]


def all_ways(name: str, queryset: Any, size: int, *, atomic: bool) -> list[Figure]:
    options = {"_atomic": atomic}
    ways = {
        "row by row": partial(walk, save, options),
        "bulk_update": partial(walk, bulk_update, options | {"_batch": BATCH}),
        "upsert": partial(walk, upsert, options | {"_batch": BATCH}),
        "filter().update()": partial(walk, update, options | {"_batch": BATCH}),
        "bare bulk_update": bare,
    }
    before = total(queryset)
    walls, processors = in_turn(ways, queryset, ROUNDS)
    assert total(queryset) == before + len(ways) * ROUNDS * size, "a row was not passed once in each walk"
    what = f"batches of {BATCH}, {name}, {size:,} rows{', _atomic' if atomic else ''}"
    times_as_fast = [
        (
            f"{what}, {way}{kind}",
            f"{statistics.median(seconds['row by row']):.2f} s",
            f"{statistics.median(seconds[way]):.2f} s",
            ratio(seconds["row by row"], seconds[way]),
            GOALS[way] if way in GOALS and name == "PostgreSQL" and not atomic and not kind else "",
        )
        for kind, seconds in (("", walls), (", processor", processors))
        for way in ("bulk_update", "upsert", "filter().update()")
    ]
    goal = "" if atomic else "≤ 1.2"
    return [*times_as_fast, beside(f"{what}, bare bulk_update", walls["bare bulk_update"], walls["bulk_update"], goal)]


def total(queryset: Any) -> int:
    from django.db.models import Sum

    found: int = queryset.aggregate(total=Sum("count"))["total"]
    return found


if __name__ == "__main__":
    from .__main__ import line

    parser = argparse.ArgumentParser(prog="python -m benchmarks.batches", description=__doc__)
    parser.add_argument("database", choices=DATABASES)
    parser.add_argument("--rows", type=int, default=ROWS)
    given = parser.parse_args()
    for figure in in_own_process(measured, given.database, given.rows):
        print("  ".join(line(figure)), flush=True)
