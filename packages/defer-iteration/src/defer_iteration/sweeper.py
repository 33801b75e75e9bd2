"""What the sweep does for iterations: it wakes plans, shards and finalizes that nobody seems to be working on."""

from __future__ import annotations

import logging

from defer_core import clock

from .base import IterationStore
from .iteration import IterationState
from .scheduling import schedule_finalize, schedule_plan, schedule_shards
from .shard import Shard, Stalled
from .stalling import grace
from .stores import all_stores

log = logging.getLogger("defer")

PAGE = 50
"""How many are woken before the clock is asked again."""


def wake_stalled(until: float | None) -> int:
    """Wake what has stalled, in every store, until the time `until` (seconds since the epoch). Returns how many."""
    woken = 0
    for store in all_stores():
        while until is None or clock.now() < until:
            stalled = store.stalled(now=clock.now(), limit=PAGE)
            done = sum(_wake(store, each) for each in stalled)
            woken += done
            if not done:
                break
    return woken


def _wake(store: IterationStore, stalled: Stalled) -> bool:
    """One stalled task gets a successor of the next generation; whoever comes second finds it changed."""
    if not store.transact(lambda: _woken(store, stalled)):
        return False
    log.warning("Iteration %s is woken: %s", stalled.iteration_id, stalled)
    return True


def _woken(store: IterationStore, stalled: Stalled) -> bool:
    woken = store.wake(stalled, due=clock.now() + grace(stalled.wakes + 1))
    iteration = store.get(stalled.iteration_id)
    if woken is None or iteration is None:
        return False
    if isinstance(woken, Shard):
        schedule_shards(store, iteration, [woken])
    elif woken.state is IterationState.NEW:
        schedule_plan(store, woken)
    else:
        schedule_finalize(store, woken)
    return True
