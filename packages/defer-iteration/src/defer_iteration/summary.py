"""Iterations as rows of `status`: those that a person must look at first, then those under way, then the newest."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from defer_core.spi import last_line

from .handle import progress_of
from .model.iteration import Iteration, IterationState
from .stores.base import IterationStore
from .stores.routing import all_stores

LOOKED_AT = 500
"""How many iterations of a store are looked at: those that are over are kept, perhaps for ever."""
_LOOK = (IterationState.HELD, IterationState.FAILED)


def rows(limit: int) -> list[dict[str, Any]]:
    """Return at most `limit` iterations."""
    found = [(store, each) for store in all_stores() for each in islice(_each(store), LOOKED_AT)]
    found.sort(key=lambda known: (known[1].state not in _LOOK, known[1].state.is_over, -known[1].created))
    return [_row(store, iteration) for store, iteration in found[:limit]]


def _each(store: IterationStore) -> Iterator[Iteration]:
    after = ""
    while page := store.list(after=after):
        yield from page
        after = page[-1].id


def _row(store: IterationStore, iteration: Iteration) -> dict[str, Any]:
    progress = progress_of(iteration, store.shards(iteration.id), store.quarantined(iteration.id))
    errors = [progress.reason, progress.error, *(each.error for each in progress.shards)]
    return {
        "id": iteration.id,
        "alias": store.alias,
        "name": progress.name,
        "label": iteration.label,
        "state": progress.state.value,
        "rows": progress.rows,
        "total": progress.total,
        "shards": len(progress.shards),
        "done": sum(each.done for each in progress.shards),
        "quarantined": len(progress.quarantined),
        "error": last_line(next(filter(None, errors), "")),
    }
