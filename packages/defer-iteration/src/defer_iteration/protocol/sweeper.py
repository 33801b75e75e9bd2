"""The sweep of iterations: it requeues the plans, shards and finalizes that have stalled, and forgets named iterations
that ended long ago."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from defer_core.spi import clock, going_on_with_trace

from ..model.iteration import Iteration, IterationState
from ..model.shard import Shard, Stalled
from ..stores.base import IterationStore
from .scheduler import Scheduler
from .timing import grace

log = logging.getLogger("defer")

PAGE = 50
"""How many are requeued, or forgotten, before the clock is read again."""


def requeue_stalled(schedulers: Sequence[Scheduler], until: float | None) -> int:
    """Requeue what has stalled, until the time `until` (seconds since the epoch), and return how many there were."""
    requeued = 0
    for scheduler in schedulers:
        while until is None or clock.now() < until:
            stalled = scheduler.store.stalled(now=clock.now(), limit=PAGE)
            done = sum(_requeue(scheduler, each) for each in stalled)
            requeued += done
            if not done:
                break
    return requeued


def _requeue(scheduler: Scheduler, stalled: Stalled) -> bool:
    """Give a stalled task a successor of the next generation. Return False if it has changed meanwhile: of two sweeps,
    one requeues it."""
    iteration = scheduler.store.transact(partial(_enqueue_successor, scheduler, stalled))
    if iteration is None:
        return False
    whole = "plan" if iteration.state is IterationState.NEW else "finalize"
    log.warning(
        "Iteration %s (%s), %s: stalled in generation %d, and requeued.",
        iteration.id,
        iteration.label,
        whole if stalled.index is None else f"shard {stalled.index}",
        stalled.generation,
    )
    return True


def _enqueue_successor(scheduler: Scheduler, stalled: Stalled) -> Iteration | None:
    store = scheduler.store
    requeued = store.requeue(stalled, due=clock.now() + grace(stalled.requeues + 1))
    iteration = store.get(stalled.iteration_id)
    if requeued is None or iteration is None:
        return None
    with going_on_with_trace(iteration.options.trace):
        if isinstance(requeued, Shard):
            scheduler.enqueue_shards(iteration, [requeued])
        elif requeued.state is IterationState.NEW:
            scheduler.enqueue_plan(requeued)
        else:
            scheduler.enqueue_finalize(requeued)
    return iteration


def forget_ended(stores: Sequence[IterationStore], until: float | None) -> int:
    """Delete the named iterations that have been over for longer than they are kept, until the time `until` (seconds
    since the epoch), and return how many there were."""
    forgotten = 0
    for store in stores:
        kept = store.history()
        while kept is not None and (until is None or clock.now() < until):
            before = clock.now() - kept
            done = sum(store.forget(each, ended_before=before) for each in store.ended(before=before, limit=PAGE))
            forgotten += done
            if not done:
                break
    return forgotten
