"""The end of an iteration: `finalize` is called until it has succeeded once."""

from __future__ import annotations

import logging
from math import inf

from defer_core.errors import PermanentTaskFailure
from defer_core.spi import finished

from ..context import running
from ..errors import FenceLostError
from ..model.iteration import Iteration, IterationState
from ..model.transitions import STOPPED
from ..stores.base import IterationStore
from .scheduler import Scheduler
from .suspension import decode_job, recording_errors, suspend
from .timing import deadline, grace

log = logging.getLogger("defer")


def run(scheduler: Scheduler, iteration_id: str) -> None:
    """Call `finalize` and record its success. Do nothing if a success is recorded already."""
    store, until = scheduler.store, deadline()
    iteration = store.transact(
        lambda: store.acquire_whole(
            iteration_id, IterationState.FINALIZING, due=lambda requeues: until + grace(requeues)
        )
    )
    if iteration is None:
        log.info("Iteration %s: nothing to finalize.", iteration_id)
        return
    job = decode_job(scheduler, iteration)
    if job is None:
        return
    try:
        with recording_errors(store, iteration), running(iteration):
            finished(job.finalize(*job.args, **job.kwargs))
    except PermanentTaskFailure as error:
        suspend(scheduler, iteration, f"finalize failed for good: {error}")
        return
    record_success(store, iteration)


def record_success(store: IterationStore, iteration: Iteration) -> None:
    """Record that `finalize` has succeeded, even if the iteration was stopped meanwhile. Delete the marker if that was
    asked for and no row is quarantined; of a named one that is kept, delete the shards.

    Raise FenceLostError if the iteration was forgotten and another one has its name."""
    is_deleted = iteration.options.delete_marker and not iteration.name
    if is_deleted and not store.quarantined(iteration.id):
        store.clear(iteration.id)

    def record() -> bool:
        before = store.control(iteration.id, IterationState.DONE, when=(IterationState.FINALIZING, *STOPPED))
        if before is None:
            return False
        if before.created != iteration.created:
            raise FenceLostError(f"Iteration {iteration.id} ({iteration.label}): another one has its name by now.")
        if is_deleted and not store.quarantined(iteration.id):
            store.delete(iteration.id)
        return True

    if store.transact(record):
        log.info("Iteration %s (%s): done.", iteration.id, iteration.label)
        if iteration.name:
            _tidy(store, iteration)


def _tidy(store: IterationStore, iteration: Iteration) -> None:
    """Delete what is not kept of a named iteration that is done, and only of that one: another may have its name."""
    if not (iteration.options.delete_marker and store.forget(iteration.id, ended_before=inf)):
        store.delete_shards(iteration)
