"""Iterations beside a bare `iterator()`, a loop by OFFSET slices and one full load, with the same empty callback.

Ours is all of it: the call, the plan, the shard with its checkpoints, finalize. Times are medians of rounds in turn
(A B A B), as a ratio within the round; `processor` is the time of this process alone, which a busy machine leaves as it
is. Memory is what a process of its own has at the most. For tables of other sizes:
`python -m benchmarks.iteration SQLite --rows 10000000`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import _tables
from ._figures import Figure
from ._tables import DATABASES, Settings, database, filled, in_own_process, set_up

SIZES = (200_000, 1_000_000)
ROUNDS = {200_000: 7, 1_000_000: 3}
"""By size; once for any other."""
SLOW = 200_000
"""Rows beyond which a loop by OFFSET, which is quadratic, and one full load are run once."""

Walk = Callable[[Any], None]


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


def ours(queryset: Any) -> None:
    """The whole iteration, with its deliveries in this process."""
    from defer_core.testing import drain, in_memory
    from defer_iteration import defer_iteration_with_finalize

    with in_memory(store="django") as queue:
        defer_iteration_with_finalize(queryset, callback, finalize, _shards=1)
        drain(queue)


def rows() -> list[Figure]:
    """All figures."""
    return [figure for name in DATABASES for figure in in_own_process(measured, name, SIZES)]


def measured(name: str, sizes: tuple[int, ...]) -> list[Figure]:
    """The figures of one database."""
    with database(name) as settings:
        set_up(settings)
        found: list[Figure] = []
        per_row = []
        for size in sizes:
            queryset = filled("Plain", size, "i + 1")
            what = f"iteration, {name}, {size:,} rows"
            walls, processors = in_turn({"bare": bare, "ours": ours}, queryset, ROUNDS.get(size, 1))
            found += [
                beside(what, walls["bare"], walls["ours"], "≤ 1.05"),
                beside(f"{what}, processor", processors["bare"], processors["ours"], "≤ 1.05"),
                *by_other_ways(what, queryset, size, walls["ours"]),
                *memory(what, settings, size),
            ]
            per_row.append((processors["ours"], size))
        return found + list(growth(name, per_row))


def by_other_ways(what: str, queryset: Any, size: int, walls: list[float]) -> Iterator[Figure]:
    for text, way in (("OFFSET slices", by_offset), ("one full load", one_load)):
        if size <= 1_000_000:
            theirs, _ = in_turn({text: way}, queryset, 3 if size <= SLOW else 1)
            floor = statistics.median(theirs[text])
            yield (
                f"{what}, beside {text}",
                f"{floor:.2f} s",
                f"{statistics.median(walls):.2f} s",
                ratio(walls, theirs[text]),
                "",
            )


def memory(what: str, settings: Settings, size: int) -> Iterator[Figure]:
    ways = {"bare": bare, "ours": ours} | ({"one full load": one_load} if size <= 1_000_000 else {})
    peaks = {text: in_own_process(peak, settings, way) for text, way in ways.items()}
    more = peaks["ours"] - peaks["bare"]
    for text in list(peaks)[2:]:
        yield (
            f"{what}, MB beside {text}",
            f"{peaks[text]:.1f} MB",
            f"{peaks['ours']:.1f} MB",
            peaks["ours"] / peaks[text],
            "",
        )
    yield f"{what}, MB more", f"{peaks['bare']:.1f} MB", f"{peaks['ours']:.1f} MB", more, "≤ 20"


def peak(settings: Settings, way: Walk) -> float:
    """MB that this process, a fresh one, has at the most. (`ru_maxrss` would be its parent's, if that had more.)"""
    set_up(settings, create=False)
    way(_tables.Plain.objects.all())  # type: ignore[attr-defined]
    (line,) = (each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def growth(name: str, per_row: list[tuple[list[float], int]]) -> Iterator[Figure]:
    if len(per_row) > 1:
        least, most = (statistics.median(times) / size * 1e6 for times, size in (per_row[0], per_row[-1]))
        yield (
            f"iteration, {name}, processor a row, largest table beside smallest",
            f"{least:.2f} us",
            f"{most:.2f} us",
            most / least,
            "≤ 1.15",
        )


def in_turn(ways: dict[str, Walk], queryset: Any, rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds by the clock, and of this process's processor time, of each way and round."""
    walls: dict[str, list[float]] = {text: [] for text in ways}
    processors: dict[str, list[float]] = {text: [] for text in ways}
    for _ in range(rounds):
        for text, way in ways.items():
            wall, processor = time.perf_counter(), time.process_time()
            way(queryset)
            walls[text].append(time.perf_counter() - wall)
            processors[text].append(time.process_time() - processor)
    return walls, processors


def beside(what: str, theirs: list[float], mine: list[float], goal: str) -> Figure:
    floor, median = statistics.median(theirs), statistics.median(mine)
    return what, f"{floor:.2f} s", f"{median:.2f} s", ratio(mine, theirs), goal


def ratio(mine: list[float], theirs: list[float]) -> float:
    """The median of the rounds' ratios; of the medians, where rounds were not in turn."""
    if len(mine) != len(theirs):
        return statistics.median(mine) / statistics.median(theirs)
    return statistics.median(each / other for each, other in zip(mine, theirs, strict=True))


if __name__ == "__main__":
    from .__main__ import line

    parser = argparse.ArgumentParser(prog="python -m benchmarks.iteration", description=__doc__)
    parser.add_argument("database", choices=DATABASES)
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES)
    given = parser.parse_args()
    for figure in in_own_process(measured, given.database, tuple(given.rows)):
        print("  ".join(line(figure)), flush=True)
