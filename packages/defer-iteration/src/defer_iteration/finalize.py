"""The end of an iteration: `finalize` is called until it has succeeded once."""

from __future__ import annotations

import logging

from defer_core.errors import PermanentTaskFailure

from .base import IterationStore
from .context import running
from .iteration import Iteration, IterationState
from .job import hold, opened
from .stalling import deadline, grace
from .stores import store_on

log = logging.getLogger("defer")


def run_finalize(alias: str, iteration_id: str) -> None:
    """The task: calls `finalize`, and records that it has succeeded. One that is recorded already is nothing to do."""
    store, until = store_on(alias), deadline()
    iteration = store.transact(
        lambda: store.claim_whole(iteration_id, IterationState.FINALIZING, due=lambda wakes: until + grace(wakes))
    )
    if iteration is None:
        log.info("Iteration %s has nothing to finalize.", iteration_id)
        return
    job = opened(store, iteration)
    if job is None:
        return
    try:
        with running(iteration):
            job.finalize(*job.args, **job.kwargs)
    except PermanentTaskFailure as error:
        hold(store, iteration, f"finalize failed for good: {error}")
        return
    record_success(store, iteration)


def record_success(store: IterationStore, iteration: Iteration) -> None:
    """Finalize has succeeded: the marker is kept, or deleted if that was asked and no row is quarantined."""
    if iteration.options.delete_marker and not store.quarantined(iteration.id):
        store.clear(iteration.id)

    def work() -> bool:
        if store.control(iteration.id, IterationState.DONE, when=(IterationState.FINALIZING,)) is None:
            return False
        if iteration.options.delete_marker and not store.quarantined(iteration.id):
            store.delete(iteration.id)
        return True

    if store.transact(work):
        log.info("Iteration %s (%s) is done.", iteration.id, iteration.label)
