"""Run the benchmarks and print one table: `python -m benchmarks [module ...]`, all of them by default.

A benchmark is a module of this folder with a function `rows()`, which returns figures: what was measured, the figure of
the floor or peer, ours, the ratio, and the goal (`≤ 1.05`). Each module runs in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import operator
import pkgutil
import re
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from ._figures import Figure, figures

HEADINGS = ("measured", "floor", "ours", "ratio", "goal", "")
MISSED = "not yet"
COMPARE = {"≤": operator.le, "≥": operator.ge}


def main() -> int:
    """The command. Returns the exit status: 1 if a goal was not reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("modules", nargs="*", help=f"which: {', '.join(modules())}")
    table: list[tuple[str, ...]] = [HEADINGS]
    for name in parser.parse_args().modules or modules():
        began = time.monotonic()
        found = measured(name)
        print(f"{name}: {len(found)} figures in {time.monotonic() - began:.0f} s", flush=True)
        table += [line(figure) for figure in found]
    print()
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return int(any(row[-1] == MISSED for row in table))


def modules() -> list[str]:
    """The names of the benchmarks."""
    return [each.name for each in pkgutil.iter_modules([str(Path(__file__).parent)]) if not each.name.startswith("_")]


def measured(name: str) -> list[Figure]:
    """The figures of one module, from a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(figures, name).result()


def line(figure: Figure) -> tuple[str, ...]:
    """A figure as the cells of the table."""
    what, floor, ours, ratio, goal = figure
    return what, floor, ours, f"{ratio:.2f}", goal, verdict(ratio, goal)


def verdict(ratio: float, goal: str) -> str:
    """Whether a ratio reaches its goal; nothing where the goal is no number."""
    match = re.match(r"([≤≥])\s*([\d.]+)", goal)
    if match is None:
        return ""
    return "reached" if COMPARE[match[1]](ratio, float(match[2])) else MISSED


if __name__ == "__main__":
    sys.exit(main())
