"""Quarantined rows are called again when a person asks for it."""

from __future__ import annotations

import logging
import traceback
from functools import partial

from defer_core import clock

from .base import IterationStore
from .context import CurrentShard, running
from .iteration import Iteration, IterationState, QuarantinedRow
from .job import Job, opened, rows_of
from .pace import LEAST_BUFFER
from .rows import Rows
from .scheduling import schedule_quarantined
from .stalling import deadline
from .stores import store_on

log = logging.getLogger("defer")


def run_quarantined(alias: str, iteration_id: str, after: int = 0) -> None:
    """The task: calls every quarantined row once more. Those that succeed are forgotten; with the last of them goes
    the marker of an iteration that is done, if that was asked."""
    store, until = store_on(alias), deadline()
    iteration = store.get(iteration_id)
    job = None if iteration is None else opened(store, iteration)
    if iteration is None or job is None:
        return
    rows, kept = rows_of(job, iteration.options), after
    for number, row in enumerate(store.quarantined(iteration_id)[after:]):
        if number and clock.now() >= until - LEAST_BUFFER:
            store.transact(partial(schedule_quarantined, store, iteration, after=kept))
            return
        error = _call(row, rows, job, iteration)
        store.settle_quarantined(row, error=error)
        kept += error is not None
    _delete_if_done(store, iteration)


def _call(row: QuarantinedRow, rows: Rows, job: Job, iteration: Iteration) -> str | None:
    """The traceback, or None for a row that succeeded or is gone."""
    instance = rows.find(row.key)
    if instance is None:
        return None
    try:
        with running(iteration, CurrentShard(index=row.index, iteration_id=iteration.id)):
            job.callback(instance, *job.args, **job.kwargs)
    except Exception:
        log.exception("Iteration %s: the quarantined row %r has raised again.", iteration.id, row.key)
        return traceback.format_exc()
    return None


def _delete_if_done(store: IterationStore, iteration: Iteration) -> None:
    now = store.get(iteration.id)
    if now is None or now.state is not IterationState.DONE or not now.options.delete_marker:
        return
    if not store.quarantined(iteration.id):
        store.delete(iteration.id)
