"""The beginning of an iteration: its rows are divided into shards."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import zip_longest

from defer_core.spi import clock

from ..errors import FenceLostError
from ..model.iteration import Iteration, IterationState
from ..model.shard import KeyRange, Shard
from ..rows.base import Rows, Split
from .fan_out import start_shards
from .scheduler import Scheduler
from .suspension import decode_job, recording_errors, suspending
from .timing import deadline, grace
from .trial import trial

log = logging.getLogger("defer")


def run(scheduler: Scheduler, iteration_id: str) -> None:
    """Divide the rows, then write the shards and enqueue their tasks in one transaction. Do nothing if the iteration is
    gone or planned already.

    Raise FenceLostError, to be retried, if another attempt has taken over."""
    store, until = scheduler.store, deadline()
    iteration = store.transact(
        lambda: store.acquire_whole(iteration_id, IterationState.NEW, due=lambda requeues: until + grace(requeues))
    )
    if iteration is None:
        log.info("Iteration %s: nothing to plan.", iteration_id)
        return
    with suspending(scheduler, iteration), recording_errors(store, iteration):
        job = decode_job(scheduler, iteration)
        if job is not None:
            rows = job.rows(iteration.options.order_field)
            _write(scheduler, iteration, rows, rows.split(iteration.options.shards))


def _write(scheduler: Scheduler, iteration: Iteration, rows: Rows, split: Split) -> None:
    store, due = scheduler.store, clock.now() + grace(0)
    shards = _shards(iteration, rows, split, due)
    left = store.prepare(iteration, shards)

    def begin() -> bool:
        if not store.plan(iteration, left, total=split.total):
            return False
        if not shards:
            _finish_empty(scheduler, iteration, due)
        elif left:
            scheduler.enqueue_shards(iteration, [each for each in left if not each.done])
        else:
            start_shards(scheduler, iteration)
        return True

    if store.transact(begin):
        log.info(
            "Iteration %s (%s): planned, %d shards, %s rows.", iteration.id, iteration.label, len(shards), split.total
        )
        return
    now = store.get(iteration.id)
    if now is not None and now.state is IterationState.NEW:  # the other attempt may die
        raise FenceLostError(f"Iteration {iteration.id} ({iteration.label}): another attempt plans it.")
    log.info("Iteration %s (%s): stopped, or planned by another attempt.", iteration.id, iteration.label)


def _shards(iteration: Iteration, rows: Rows, split: Split, due: float) -> list[Shard]:
    """Return the shards: those of the ranges, each with a range of what comes after the trial; then, if each range has
    more than a row, some that are done, to be given parts of others."""
    options, ranges = iteration.options, split.ranges
    rest: Sequence[KeyRange] = ()
    if options.limit is not None:
        ranges, rest = trial(rows, ranges, options.limit, options.shards)
    number = max(len(ranges), len(rest))
    if options.rebalance and number and (split.total is None or split.total > number):
        number = max(number, options.shards)
    return [
        Shard(
            iteration_id=iteration.id,
            index=index,
            range=within or KeyRange(),
            rest=beyond,
            generation=_first_generation(iteration),
            due=due,
            done=within is None,
        )
        for index, (_, within, beyond) in enumerate(zip_longest(range(number), ranges, rest))
    ]


def _first_generation(iteration: Iteration) -> int:
    """Return the generation of new shards: that of a named iteration begins at a random number, so that no task and no
    attempt of an earlier one of this name passes for one of theirs."""
    return iteration.generation if iteration.name else 0


def _finish_empty(scheduler: Scheduler, iteration: Iteration, due: float) -> None:
    """Move an iteration without rows to `finalizing` at once, as resuming does when no shard is open."""
    store = scheduler.store
    store.control(iteration.id, IterationState.RUNNING, when=(IterationState.RUNNING,), due=due)
    planned = store.get(iteration.id)
    if planned is not None:
        scheduler.enqueue_finalize(planned)
