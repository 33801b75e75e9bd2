"""The news that an iteration is `failed` or `held`: `on_failed` is called."""

from __future__ import annotations

import logging

from defer_core.spi import finished

from ..context import running
from ..model.iteration import IterationState
from ..stores.base import IterationStore
from .job import unpack

log = logging.getLogger("defer")

BAD_NEWS = (IterationState.FAILED, IterationState.HELD)
"""The states that `on_failed` is told of."""


def run(store: IterationStore, iteration_id: str, generation: int) -> None:
    """Call `on_failed`, unless the iteration has been resumed or cancelled in the meantime."""
    iteration = store.get(iteration_id)
    if iteration is None or iteration.state not in BAD_NEWS or iteration.generation != generation:
        log.info("Iteration %s: it has moved on since generation %d, and nobody is told.", iteration_id, generation)
        return
    job = unpack(iteration.job)
    if job.on_failed is not None:
        with running(iteration):
            finished(job.on_failed(*job.args, **job.kwargs))
