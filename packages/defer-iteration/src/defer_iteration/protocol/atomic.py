"""`_atomic=True`: what callbacks write and the checkpoint of their rows are one transaction, so that a row counts
exactly once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from defer_core.spi import clock, finished

from ..context import CurrentShard
from ..errors import SpoiltTransactionError
from ..model.shard import Key, KeyRange, Shard
from ..rows.base import Rows
from ..stores.base import TRANSIENT_FAULTS, Fault, IterationStore
from .attempt import Attempt
from .job import Job
from .passing import PassResult, RowPasser, StopReason
from .timing import Pace

_NOTHING = PassResult(reason=StopReason.TIME, last=None, rows=0)


class _RollBack(Exception):
    """Leaves the transaction of a page, and so rolls it back."""


def guarded(callback: Callable[..., Any], store: IterationStore) -> Callable[..., None]:
    """Return the callback, made to fail if it has spoilt its transaction: the rows after it are not to blame."""

    def call(*args: Any, **kwargs: Any) -> None:
        finished(callback(*args, **kwargs))
        if store.is_spoilt():
            raise SpoiltTransactionError

    return call


class AtomicPasser(RowPasser):
    """Passes one page at a time, of no more rows than a transaction takes."""

    one_page = True
    stop_before: Key | None = None
    """The row that raised, while those before it are passed again."""

    def __init__(
        self, job: Job, rows: Rows, within: KeyRange, pace: Pace, current: CurrentShard, store: IterationStore
    ) -> None:
        super().__init__(replace(job, callback=guarded(job.callback, store)), rows, within, pace, current)
        self.store = store
        if rows.limit > store.atomic_rows:
            rows.limit = store.atomic_rows
        self.most = self.most_ever = rows.limit

    def pass_at_most(self, rows: int) -> None:
        self.most = self.most_ever = min(self.most_ever, rows)

    def page(self, after: Key | None) -> Iterator[Any]:
        for row in islice(super().page(after), self.most):
            if self.stop_before is not None and self.rows.key(self.rows.take_key(row)) == self.stop_before:
                return
            yield row
            if self.store.is_full():
                return


class AtomicAttempt(Attempt):
    """An attempt whose pages are transactions of the iteration's alias."""

    passer: AtomicPasser
    result: PassResult = _NOTHING
    """The result of the last pass."""
    recorded_at: float
    """When it was recorded, before the commit."""

    def new_passer(self, job: Job) -> AtomicPasser:
        rows = job.rows(self.iteration.options.order_field)
        return AtomicPasser(job, rows, self.shard.range, self.pace, self.current, self.store)

    def _page(self) -> bool:
        """Pass one page and write its checkpoint in one transaction, which may be begun again after a conflict. Return
        whether to go on."""
        since, self.result = self.shard, _NOTHING
        try:
            going_on = self.store.transact(partial(self._pass_and_record, since))
        except Exception as error:
            self.shard = since
            return self._rolled_back(self._blamed(error, since))
        self.pace.checkpointed(began=self.recorded_at, ended=clock.now())
        self.passer.most = min(self.passer.most * 2, self.passer.most_ever)
        return going_on

    def _pass_and_record(self, since: Shard) -> bool:
        self.shard = since
        self.result = result = self.passer.pass_rows(since.position)
        if result.error is not None:
            raise result.error if self.store.fault(result.error) in TRANSIENT_FAULTS else _RollBack
        if result.reason is StopReason.END and (result.rows or self.passer.stop_before is not None):
            # the next page will be empty, or begin with the row that raised
            result = replace(result, reason=StopReason.TIME)
        going_on = self.record(result)
        self.recorded_at = clock.now()
        return going_on

    def _blamed(self, error: Exception, since: Shard) -> PassResult:
        """Return the result of a pass that was rolled back: a row has raised, or the commit was refused for its one row
        or for any of its rows. Raise the error if it is neither, as that of a hook that runs after the commit."""
        result = self.result
        if result.error is not None and (error is result.error or isinstance(error, _RollBack)):
            return result
        if not result.rows or self.store.fault(error) is not Fault.CONTENT or self._is_committed(since):
            raise error
        if result.rows > 1:
            return result
        return replace(result, reason=StopReason.RAISED, rows=0, key=result.last, error=error)

    def _is_committed(self, since: Shard) -> bool:
        now = self.store.shard(since.iteration_id, since.index)
        if now is None:
            return True
        return (now.position, now.rows, now.done) != (since.position, since.rows, since.done)

    def _rolled_back(self, result: PassResult) -> bool:
        """Go on after a page that was rolled back, and return whether to go on.

        The rows before the one that raised are passed again, in a transaction of their own; then its failure is
        recorded. A failure that may be due to their writes is first tried without them. Which row made the commit fail
        is found by passing fewer."""
        if result.error is None:
            self.passer.most = result.rows // 2
            return True
        if result.reason is StopReason.UNREAD and result.asked > 1:  # to be read again with half as many rows
            return True
        if result.rows:
            expected = self.shard.rows + result.rows
            going_on = self._page_before(result.key)
            if not going_on or self.shard.rows != expected:  # it stopped before the row that raised, which comes again
                return going_on
            if self.store.fault(result.error) is Fault.EARLIER_WRITES:
                self.passer.most = self.passer.most_ever = result.rows
                return True
        return self.record(replace(result, rows=0, last=self.shard.position, counted={}))

    def _page_before(self, key: Key | None) -> bool:
        self.passer.stop_before = key
        try:
            return self._page()
        finally:
            self.passer.stop_before = None
