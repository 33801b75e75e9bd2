"""One attempt at a shard: rows are passed to the callback from the last checkpoint on, until the end or the
deadline."""

from __future__ import annotations

import logging

from .atomic import AtomicAttempt
from .attempt import Attempt
from .base import IterationStore
from .context import running
from .errors import HeldError, IterationRefusedError
from .iteration import Iteration
from .job import Job, hold, opened
from .shard import Shard
from .stalling import deadline, grace
from .stores import store_on

log = logging.getLogger("defer")


def run_shard(alias: str, iteration_id: str, index: int, generation: int) -> None:
    """The task: takes the shard's next fence, and works. Another generation, a shard that is done and an iteration
    that does not run are nothing to do. Raises FenceLostError (to be retried) when a newer attempt has taken over."""
    store, until = store_on(alias), deadline()
    claimed = store.transact(
        lambda: store.claim(iteration_id, index, generation, due=lambda wakes: until + grace(wakes))
    )
    if claimed is None:
        log.info("Shard %d of iteration %s has nothing to do in generation %d.", index, iteration_id, generation)
        return
    iteration, shard = claimed
    job = opened(store, iteration)
    if job is not None:
        _work(store, iteration, shard, job, until)


def _work(store: IterationStore, iteration: Iteration, shard: Shard, job: Job, until: float) -> None:
    kind = AtomicAttempt if iteration.options.atomic else Attempt
    try:
        attempt = kind(store, iteration, shard, job, until)
        with running(iteration, attempt.current):
            attempt.run()
    except (HeldError, IterationRefusedError) as error:
        hold(store, iteration, str(error))
