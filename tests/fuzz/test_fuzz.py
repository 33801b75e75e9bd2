"""Hostile input: a short run of the fuzzer, and what must be refused by name."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from fuzz.fuzz import bomb, fuzz

from defer_core import Delivery, Outcome, execute
from defer_core.testing import in_memory
from defer_core.wire.envelope import MAX_INFLATED


@pytest.fixture(autouse=True)
def _loudly_again() -> Iterator[None]:
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("seed", range(1000, 1004))
def test_only_the_defined_outcomes(seed: int) -> None:
    counts = fuzz(seed, 1_500)
    assert counts["200"] > 100 and sum(counts.values()) == 1_500


@pytest.mark.parametrize(("size", "reason"), [(MAX_INFLATED * 3, "unreadable")])
def test_a_decompression_bomb_is_kept_small(size: int, reason: str) -> None:
    with in_memory() as queue:
        assert execute(bomb(size), Delivery(retry_count=0)) is Outcome.PERMANENT
        assert queue.queued() == []
