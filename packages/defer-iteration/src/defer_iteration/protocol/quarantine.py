"""Quarantined rows are called again when a person asks for it."""

from __future__ import annotations

import logging
from functools import partial

from defer_core.spi import clock, failure_of, finished, traceback_of

from ..context import CurrentShard, running
from ..model import counters
from ..model.iteration import Iteration, IterationState, QuarantinedRow
from ..model.words import key_in_words
from ..stores.base import TRANSIENT_FAULTS, IterationStore
from .atomic import guarded
from .job import Job
from .scheduler import Scheduler
from .suspension import decode_job
from .timing import LEAST_BUFFER, deadline

log = logging.getLogger("defer")


def run(scheduler: Scheduler, iteration_id: str, after: int) -> None:
    """Call every quarantined row once more, and forget those that succeed. With the last of them goes the marker of an
    iteration that is done, if that was asked for."""
    store, until = scheduler.store, deadline()
    iteration = store.get(iteration_id)
    job = None if iteration is None else decode_job(scheduler, iteration)
    if iteration is None or job is None:
        return
    retry, kept = _Retry(store, iteration, job), after
    for number, row in enumerate(store.quarantined(iteration_id)[after:]):
        if number and clock.now() >= until - LEAST_BUFFER:
            store.transact(partial(scheduler.enqueue_quarantined, iteration, after=kept))
            return
        kept += not retry.call(row)
    now = store.get(iteration_id)
    is_done = now is not None and now.state is IterationState.DONE and now.options.delete_marker
    if is_done and not store.quarantined(iteration_id):
        store.delete(iteration_id)


class _Retry:
    """Calls quarantined rows as the walk did: under `_atomic`, what a row writes and the record of its success are one
    transaction."""

    def __init__(self, store: IterationStore, iteration: Iteration, job: Job) -> None:
        self.store, self.iteration, self.job, self.atomic = store, iteration, job, iteration.options.atomic
        self.rows = job.rows(iteration.options.order_field)
        self.callback = guarded(job.callback, store) if self.atomic else job.callback

    def call(self, row: QuarantinedRow) -> bool:
        """Call a row, record the result, and return whether the row is no longer quarantined. Raise an error that is
        not the row's fault."""
        try:
            if self.atomic:
                self.store.transact(lambda: self._call(row))
            else:
                self._call(row)
        except (Exception, SystemExit) as raised:
            error = failure_of(raised)
            if self.store.fault(error) in TRANSIENT_FAULTS:
                raise error
            if self.atomic and self._lock(row) is None:  # it was raised after the commit
                raise error
            log.error(
                "Iteration %s (%s), shard %d: the quarantined row %s has raised again.",
                self.iteration.id,
                self.iteration.label,
                row.index,
                key_in_words(row.key, self.iteration.options.order_field),
                exc_info=error,
            )
            self.store.record_retry(row, error=traceback_of(error))
            return False
        return True

    def _call(self, row: QuarantinedRow) -> None:
        """Call a row and record its success, unless another task has; a row that is gone counts as one."""
        if self._lock(row) is None:
            return
        known = counters.kinds(self.iteration.counters)
        shard = CurrentShard(index=row.index, iteration_id=row.iteration_id, kinds=known)
        instance = self.rows.find(row.key)
        if instance is not None:
            with running(self.iteration, shard):
                given = instance if self.iteration.options.batch is None else [instance]
                finished(self.callback(given, *self.job.args, **self.job.kwargs))
        self.store.record_retry(row, error=None, counted=shard.counted)

    def _lock(self, row: QuarantinedRow) -> QuarantinedRow | None:
        """Return the row as it is now; under `_atomic`, no other task calls it before this transaction ends."""
        return self.store.transact(lambda: self.store.lock_quarantined(row))
