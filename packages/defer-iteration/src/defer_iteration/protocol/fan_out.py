"""The tasks of an iteration's shards: enqueued in one transaction, or page by page if they are too many for one."""

from __future__ import annotations

import logging

from defer_core.spi import clock

from ..model.iteration import Iteration, IterationState
from .scheduler import Scheduler
from .timing import grace

log = logging.getLogger("defer")


def start_shards(scheduler: Scheduler, iteration: Iteration, *, after: int = -1) -> None:
    """Move the open shards whose index is above `after` to their next generation and enqueue them, in the caller's
    transaction. Leave more than a page to a task; the sweep finds the rest stalled if that task is lost."""
    store = scheduler.store
    page = store.renew(iteration.id, due=clock.now() + grace(0), after=after, limit=store.page)
    scheduler.enqueue_shards(iteration, page)
    if page and len(page) == store.page:
        scheduler.enqueue_fan_out(iteration, after=page[-1].index)


def run(scheduler: Scheduler, iteration_id: str, generation: int, after: int) -> None:
    """Start the next page of shards, unless the iteration is not running or is in another generation."""
    store = scheduler.store

    def start_page() -> None:
        iteration = store.get(iteration_id)
        if iteration is None or iteration.state is not IterationState.RUNNING or iteration.generation != generation:
            log.info("Iteration %s: no shards to start in generation %d.", iteration_id, generation)
        else:
            start_shards(scheduler, iteration, after=after)

    store.transact(start_page)
