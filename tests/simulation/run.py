"""Try many schedules, count the faults, and tell the story of a failing seed: `run.py --seeds 20000`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from simulation import iterations, mutants, tasks
from simulation.world import World

SCENARIOS: dict[str, Callable[[int], World]] = {"iterations": iterations.simulate, "tasks": tasks.simulate}
MUTANTS: dict[str, dict[str, mutants.Mutant]] = {
    "iterations": mutants.OF_ITERATIONS,
    "tasks": mutants.OF_TASKS,
}
CHUNK = 100
SEEN_BY = {
    "names_trusted_for_ever": 94,
    "run_that_gives_up_to_a_sweep": 316,
    "counted_outside_the_transaction": 274,
    "created_unseen": 35,
    "divided_and_walked_to_the_end": 44,
    "divided_in_two_transactions": 259,
    "divided_without_fence": 166,
    "generations_of_names_from_zero": 67,
    "lost_fence_answered_2xx": 80,
    "no_fence": 28,
    "parts_for_shards_that_were_done": 63,
    "throttled_without_successor": 40,
}
"""Where to look first for a seed that notices a mutant: what noticed it last."""


def violations(scenario: str, seeds: Iterable[int]) -> tuple[Counter[str], list[int]]:
    """The faults that were injected, and the seeds that broke a promise."""
    logging.disable(logging.CRITICAL)
    counts: Counter[str] = Counter()
    bad = []
    for seed in seeds:
        world = SCENARIOS[scenario](seed)
        counts += world.counts
        if world.violations:
            bad.append(seed)
    return counts, bad


def caught_at(scenario: str, mutant: str, limit: int = 1000) -> int | None:
    """The first seed that notices a mutant, or None."""
    with MUTANTS[scenario][mutant]():
        seeds = [SEEN_BY[mutant], *range(limit)] if mutant in SEEN_BY else range(limit)
        return next((seed for seed in seeds if SCENARIOS[scenario](seed).violations), None)


def story(scenario: str, seed: int, mutant: str | None = None) -> str:
    """What happened under a seed."""
    with MUTANTS[scenario][mutant]() if mutant else nullcontext():
        world = SCENARIOS[scenario](seed)
    return "\n".join([f"seed {seed} of {scenario}:", *world.story, *(f"VIOLATION {each}" for each in world.violations)])


def main() -> int:
    """Returns the exit status: 1 if a promise was broken, or a mutant was not noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="schedules of each scenario")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first seed")
    parser.add_argument("--seed", type=int, help="tell the story of this one")
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), action="append", help="only this one")
    parser.add_argument("--mutants", action="store_true", help="also tell which seed notices which deliberate fault")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    scenarios = arguments.scenario or sorted(SCENARIOS)
    if arguments.seed is not None:
        print("\n\n".join(story(each, arguments.seed) for each in scenarios))
        return 0
    failed = [_try(each, arguments) for each in scenarios]
    missed = [_notice(each) for each in scenarios if arguments.mutants]
    return int(any(failed) or any(missed))


def _try(scenario: str, arguments: argparse.Namespace) -> bool:
    started, counts, bad = time.monotonic(), Counter[str](), []
    last = arguments.first + arguments.seeds
    chunks = [range(at, min(at + CHUNK, last)) for at in range(arguments.first, last, CHUNK)]
    with ProcessPoolExecutor(arguments.processes) as pool:
        for more, worse in pool.map(violations, [scenario] * len(chunks), chunks):
            counts += more
            bad += worse
    print(f"{scenario}: {arguments.seeds} seeds, {len(bad)} violations, {time.monotonic() - started:.0f} s")
    for fault, count in sorted(counts.items()):
        print(f"  {count:8} {fault}")
    if bad:
        print(story(scenario, bad[0]))
        print("failing seeds:", *bad[:20])
    return bool(bad)


def _notice(scenario: str) -> bool:
    logging.disable(logging.CRITICAL)
    missed = False
    for name, mutant in MUTANTS[scenario].items():
        seed = caught_at(scenario, name)
        missed = missed or seed is None
        seen = "by NOTHING" if seed is None else f"by seed {seed}: {_violation(scenario, name, seed)}"
        print(f"  {scenario}: {name}\n      {' '.join((mutant.__doc__ or '').split())}\n      seen {seen}")
    return missed


def _violation(scenario: str, mutant: str, seed: int) -> str:
    with MUTANTS[scenario][mutant]():
        return SCENARIOS[scenario](seed).violations[0][:100]


if __name__ == "__main__":
    sys.exit(main())
