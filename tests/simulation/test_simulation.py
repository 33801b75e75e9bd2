"""Promises 1 to 6 under crashes: some hundred schedules; and every deliberate fault is noticed."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from simulation.run import MUTANTS, SCENARIOS, caught_at, story, violations


@pytest.fixture(autouse=True)
def _quietly() -> Iterator[None]:
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(0, 400, 100))
@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_no_schedule_breaks_a_promise(scenario: str, first: int) -> None:
    counts, bad = violations(scenario, range(first, first + 100))
    assert not bad, story(scenario, bad[0])
    assert min(counts[fault] for fault in ("crash before", "crash after", "transient error", "ambiguous error")) > 25


@pytest.mark.parametrize(("scenario", "mutant"), [(each, name) for each in sorted(MUTANTS) for name in MUTANTS[each]])
def test_a_deliberate_fault_is_noticed_within_1000_seeds(scenario: str, mutant: str) -> None:
    logging.disable(logging.CRITICAL)
    assert caught_at(scenario, mutant) is not None


def test_a_seed_reproduces() -> None:
    assert story("tasks", 7) == story("tasks", 7)
    assert story("tasks", 7) != story("tasks", 8)
