"""The beginning of an iteration: its rows are divided into shards."""

from __future__ import annotations

import logging

from defer_core import clock

from .base import IterationStore
from .errors import HeldError
from .iteration import Iteration, IterationState
from .job import Job, hold, opened, rows_of
from .rows import Split
from .scheduling import schedule_finalize, schedule_shards
from .shard import Shard
from .stalling import deadline, grace
from .stores import store_on

log = logging.getLogger("defer")


def run_plan(alias: str, iteration_id: str) -> None:
    """The task: divides the rows, then in one transaction writes the shards and enqueues their tasks. An iteration
    that is gone or planned already is nothing to do."""
    store, until = store_on(alias), deadline()
    iteration = store.claim_whole(iteration_id, IterationState.NEW, due=lambda wakes: until + grace(wakes))
    if iteration is None:
        log.info("Iteration %s has nothing to plan.", iteration_id)
        return
    job = opened(store, iteration)
    split = None if job is None else _split(store, iteration, job)
    if split is not None:
        _write(store, iteration, split)


def _split(store: IterationStore, iteration: Iteration, job: Job) -> Split | None:
    try:
        return rows_of(job, iteration.options).split(iteration.options.shards)
    except HeldError as error:
        hold(store, iteration, str(error))
        return None


def _write(store: IterationStore, iteration: Iteration, split: Split) -> None:
    due = clock.now() + grace(0)
    shards = [
        Shard(iteration_id=iteration.id, index=index, range=each, due=due) for index, each in enumerate(split.ranges)
    ]
    with store.transaction():
        if not store.plan(iteration.id, shards, total=split.total):
            log.info("Iteration %s was planned by somebody else.", iteration.id)
            return
        if shards:
            schedule_shards(store, iteration, shards)
        else:
            _finish_empty(store, iteration, due)
    log.info("Iteration %s (%s) has %d shards, %s rows.", iteration.id, iteration.label, len(shards), split.total)


def _finish_empty(store: IterationStore, iteration: Iteration, due: float) -> None:
    """No rows: `running` leads to `finalizing` at once, as it does on resuming when no shard is open."""
    store.control(iteration.id, IterationState.RUNNING, when=(IterationState.RUNNING,), due=due)
    planned = store.get(iteration.id)
    if planned is not None:
        schedule_finalize(store, planned)
