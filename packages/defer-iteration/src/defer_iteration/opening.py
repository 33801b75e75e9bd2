"""Shards are set to work: all in one transaction, or page by page where one does not take them."""

from __future__ import annotations

import logging

from defer_core import clock

from .base import IterationStore
from .iteration import Iteration, IterationState
from .scheduling import schedule_opening, schedule_shards
from .stalling import grace
from .stores import store_on

log = logging.getLogger("defer")


def open_shards(store: IterationStore, iteration: Iteration, *, after: int = -1) -> None:
    """In the transaction: move the open shards beyond one to their next generation, and enqueue them. More than a page
    is left to a task; what that task should lose, the sweep finds stalled."""
    page = store.reopen(iteration.id, due=clock.now() + grace(0), after=after, limit=store.page)
    schedule_shards(store, iteration, page)
    if page and len(page) == store.page:
        schedule_opening(store, iteration, after=page[-1].index)


def run_opening(alias: str, iteration_id: str, generation: int, after: int) -> None:
    """The task: opens the next page of shards. An iteration that does not run, or in another generation, is nothing to
    do."""
    store = store_on(alias)

    def work() -> None:
        iteration = store.get(iteration_id)
        if iteration is None or iteration.state is not IterationState.RUNNING or iteration.generation != generation:
            log.info("Iteration %s has nothing to open in generation %d.", iteration_id, generation)
        else:
            open_shards(store, iteration, after=after)

    store.transact(work)
