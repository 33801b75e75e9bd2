"""`_batch=500`: lists of rows are passed to the callback. A page is a batch; one that raises is read again and halved,
down to the row that raises alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any, TypeVar

from defer_core.spi import clock, failure_of, finished

from ..errors import TimeoutException
from ..model import counters
from ..model.counters import Part
from ..model.shard import Key
from ..rows.base import Rows
from .atomic import AtomicAttempt, AtomicPasser
from .attempt import Attempt
from .job import Job
from .passing import PassResult, RowPasser, StopReason
from .timing import CHECKPOINT_EVERY

Passer = TypeVar("Passer", bound=RowPasser)


class BatchPasser(RowPasser):
    """Passes the rows of a range in batches."""

    def rows_wanted(self, now: float) -> int:
        """Return how many rows the next batch should have: it may end after the next checkpoint is due."""
        return self.size.wanted(min(CHECKPOINT_EVERY, self.pace.stop_at - now))

    def _pass_page(self, after: Key | None, counted: dict[str, Part]) -> PassResult:
        now, counting = clock.source(), self.current.counted
        began = now()
        wanted = self.rows_wanted(began)
        full = min(self.rows.ask_for(wanted), wanted)
        batch, keys, unread = self._read(after, wanted)
        if not batch:
            return unread or PassResult(reason=StopReason.END, last=after, rows=0)
        self.size.weigh(batch[0])
        self.size.weigh(batch[-1])
        try:
            finished(self.call(batch))
        except (Exception, SystemExit) as raised:
            counting.clear()
            self.pace.is_due(began, now(), len(keys))
            return self._raised(failure_of(raised), after, keys)
        counters.add(counted, counting)
        counting.clear()
        at = now()
        self.size.passed(wanted, len(keys), at - began)
        if unread:
            self.size.suspects = 1
            full = len(keys)
        result = self._passed(after, self.rows.key(keys[-1]), len(keys), full)
        is_due = self.pace.is_due(began, at, len(keys)) and result.reason is StopReason.PAGE
        return replace(result, reason=StopReason.TIME) if is_due else result

    def _read(self, after: Key | None, wanted: int) -> tuple[list[Any], list[Any], PassResult | None]:
        """Return the next rows, their keys, and what stopped them if it is a row that cannot be read."""
        batch: list[Any] = []
        keys: list[Any] = []
        try:
            for row in islice(self.page(after), wanted):
                keys.append(self.rows.take_key(row))
                batch.append(row)
        except Exception as error:
            return batch, keys, self._unread(error, wanted, len(batch), after)
        return batch, keys, None

    def _raised(self, error: Exception, after: Key | None, keys: list[Any]) -> PassResult:
        reason = StopReason.HALVED if len(keys) > 1 else StopReason.RAISED
        if isinstance(error, TimeoutException):
            reason = StopReason.YIELDED
        key = self.rows.key(keys[0])
        return PassResult(reason=reason, last=after, rows=0, key=key, error=error, asked=len(keys))


class AtomicBatchPasser(BatchPasser, AtomicPasser):
    """Passes one batch at a time, in its transaction."""


class BatchAttempt(Attempt):
    """An attempt that passes batches."""

    def new_passer(self, job: Job) -> RowPasser:
        passer = BatchPasser(job, _rows(self, job), self.shard.range, self.pace, self.current)
        return _alone_first(self, passer)


class AtomicBatchAttempt(AtomicAttempt):
    """An attempt whose batches are transactions of the iteration's alias."""

    def new_passer(self, job: Job) -> AtomicPasser:
        passer = AtomicBatchPasser(job, _rows(self, job), self.shard.range, self.pace, self.current, self.store)
        return _alone_first(self, passer)


def _rows(attempt: Attempt, job: Job) -> Rows:
    """Return the rows of the job, of which a page has no more than a batch may have."""
    options = attempt.iteration.options
    rows = job.rows(options.order_field)
    rows.limit = min(rows.limit, options.batch or 1)
    return rows


def _alone_first(attempt: Attempt, passer: Passer) -> Passer:
    """Let the first batch be one row, if that has raised before or the shard has stalled in it: a batch that raises, or
    lasts too long, would be called again and again."""
    if attempt.shard.failing is not None or attempt.shard.requeues:
        passer.size.suspects = 1
    return passer
