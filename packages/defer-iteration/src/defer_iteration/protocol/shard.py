"""The task of a shard: its rows are passed to the callback from the last checkpoint on."""

from __future__ import annotations

import logging

from ..context import running
from ..model.iteration import Iteration
from ..model.shard import Shard
from .atomic import AtomicAttempt
from .attempt import Attempt
from .batches import AtomicBatchAttempt, BatchAttempt
from .job import Job
from .scheduler import Scheduler
from .suspension import decode_job, recording_errors, suspending
from .timing import deadline, grace

log = logging.getLogger("defer")

_ATTEMPTS: dict[tuple[bool, bool], type[Attempt]] = {
    (False, False): Attempt,
    (False, True): BatchAttempt,
    (True, False): AtomicAttempt,
    (True, True): AtomicBatchAttempt,
}
"""By whether the iteration is `_atomic`, and whether it has a `_batch`."""


def run(scheduler: Scheduler, iteration_id: str, index: int, generation: int) -> None:
    """Take the shard's next fence and pass its rows, until the end or the deadline. Do nothing if the shard is done or
    in another generation, or if the iteration is not running.

    Raise FenceLostError, to be retried, if a newer attempt has taken over."""
    store, until = scheduler.store, deadline()
    acquired = store.transact(
        lambda: store.acquire(iteration_id, index, generation, due=lambda requeues: until + grace(requeues))
    )
    if acquired is None:
        log.info("Iteration %s, shard %d: nothing to do in generation %d.", iteration_id, index, generation)
        return
    iteration, shard = acquired
    with suspending(scheduler, iteration), recording_errors(store, shard):
        job = decode_job(scheduler, iteration)
        if job is not None:
            _work(scheduler, iteration, shard, job, until)


def _work(scheduler: Scheduler, iteration: Iteration, shard: Shard, job: Job, until: float) -> None:
    attempt = _ATTEMPTS[iteration.options.atomic, iteration.options.batch is not None](
        scheduler, iteration, shard, job, until
    )
    with running(iteration, attempt.current):
        attempt.run()
