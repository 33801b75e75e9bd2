"""The beginning of an iteration: its rows are divided into shards."""

from __future__ import annotations

import logging

from defer_core import clock

from .base import IterationStore
from .errors import FenceLostError, HeldError, IterationRefusedError
from .iteration import Iteration, IterationState
from .job import Job, hold, opened, rows_of
from .opening import open_shards
from .rows import Split
from .scheduling import schedule_finalize, schedule_shards
from .shard import Shard
from .stalling import deadline, grace
from .stores import store_on

log = logging.getLogger("defer")


def run_plan(alias: str, iteration_id: str) -> None:
    """The task: divides the rows, then in one transaction writes the shards and enqueues their tasks. An iteration
    that is gone or planned already is nothing to do. Raises FenceLostError (to be retried) when another attempt has
    taken over."""
    store, until = store_on(alias), deadline()
    iteration = store.transact(
        lambda: store.claim_whole(iteration_id, IterationState.NEW, due=lambda wakes: until + grace(wakes))
    )
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
    except (HeldError, IterationRefusedError) as error:
        hold(store, iteration, str(error))
        return None


def _write(store: IterationStore, iteration: Iteration, split: Split) -> None:
    due = clock.now() + grace(0)
    shards = [
        Shard(iteration_id=iteration.id, index=index, range=each, due=due) for index, each in enumerate(split.ranges)
    ]
    left = store.prepare(iteration, shards)

    def begin() -> bool:
        if not store.plan(iteration, left, total=split.total):
            return False
        if not shards:
            _finish_empty(store, iteration, due)
        elif left:
            schedule_shards(store, iteration, left)
        else:
            open_shards(store, iteration)
        return True

    if store.transact(begin):
        log.info("Iteration %s (%s) has %d shards, %s rows.", iteration.id, iteration.label, len(shards), split.total)
    else:
        _superseded(store, iteration)


def _superseded(store: IterationStore, iteration: Iteration) -> None:
    """Nothing to do once it is planned, or stopped; but whoever is still about it may die."""
    now = store.get(iteration.id)
    if now is not None and now.state is IterationState.NEW:
        raise FenceLostError(f"The plan of iteration {iteration.id} has been taken over.")
    log.info("Iteration %s was planned by somebody else, or stopped.", iteration.id)


def _finish_empty(store: IterationStore, iteration: Iteration, due: float) -> None:
    """No rows: `running` leads to `finalizing` at once, as it does on resuming when no shard is open."""
    store.control(iteration.id, IterationState.RUNNING, when=(IterationState.RUNNING,), due=due)
    planned = store.get(iteration.id)
    if planned is not None:
        schedule_finalize(store, planned)
