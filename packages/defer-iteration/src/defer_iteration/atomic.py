"""`_atomic=True`: what callbacks write and the checkpoint that says so are one transaction, so that a row counts
exactly once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, ClassVar

from defer_core import clock

from .attempt import Attempt, Passed, Why
from .base import Fault, IterationStore
from .errors import SpoiltTransactionError
from .iteration import Iteration
from .job import Job
from .shard import Key, Shard

_NOTHING = Passed(why=Why.TIME, last=None, rows=0)


class _Undone(Exception):
    """Leaves the transaction of a pass, which it rolls back."""


class AtomicAttempt(Attempt):
    """An attempt whose pages are transactions of the iteration's alias."""

    one_page: ClassVar[bool] = True
    stop_before: Key | None = None
    """The row that raised, while those before it are passed again."""
    passed: Passed = _NOTHING
    """What the last pass came to."""

    def __init__(self, store: IterationStore, iteration: Iteration, shard: Shard, job: Job, until: float) -> None:
        super().__init__(store, iteration, shard, replace(job, callback=self._guarded(job.callback)), until)
        if self.rows.limit > store.atomic_rows:
            self.rows.limit = store.atomic_rows
        self.most = self.most_ever = self.rows.limit

    def _guarded(self, callback: Callable[..., Any]) -> Callable[..., None]:
        """The callback, which fails where it has spoilt the page: the rows after it are not to blame."""

        def call(*args: Any, **kwargs: Any) -> None:
            callback(*args, **kwargs)
            if self.store.is_spoilt():
                raise SpoiltTransactionError

        return call

    def run(self) -> None:
        while self._page():
            pass

    def page(self, after: Key | None) -> Iterator[Any]:
        for row in islice(super().page(after), self.most):
            if self.stop_before is not None and self.rows.key(self.rows.take_key(row)) == self.stop_before:
                return
            yield row
            if self.store.is_full():
                return

    def _page(self) -> bool:
        """One page and its checkpoint, in one transaction, which is begun again where another one was in its way."""
        since, self.passed = self.shard, _NOTHING
        try:
            going_on = self.store.transact(partial(self._try, since))
        except Exception as error:
            self._saved(since)
            return self._undone(self._blamed(error))
        self.pace.checkpointed(began=self.settled_at, ended=clock.now())
        self.most = min(self.most * 2, self.most_ever)
        return going_on

    def _try(self, since: Shard) -> bool:
        self._saved(since)
        self.passed = passed = self.pass_rows()
        if passed.error is not None:
            raise passed.error if self.store.fault(passed.error) is Fault.CONTENTION else _Undone
        if passed.why is Why.END and (passed.rows or self.stop_before is not None):
            # the next page will be empty, or begin with the row that raised
            passed = replace(passed, why=Why.TIME)
        going_on = self.settle(passed)
        self.settled_at = clock.now()
        return going_on

    def _blamed(self, error: Exception) -> Passed:
        """What a pass that was rolled back came to: a row has raised, or the commit was refused, for its one row or
        for any of them. Raises the error where it is neither."""
        passed = self.passed
        if passed.error is not None and (error is passed.error or isinstance(error, _Undone)):
            return passed
        if not passed.rows or self.store.fault(error) is not Fault.CONTENT:
            raise error
        if passed.rows > 1:
            return passed
        return replace(passed, why=Why.RAISED, rows=0, key=passed.last, error=error)

    def _undone(self, passed: Passed) -> bool:
        """Go on where nothing of a page is left. The rows before the one that raised are passed again, in a transaction
        of their own, and then the failure is recorded; one that may be due to them is tried without them first. Which
        row made the commit fail is found by taking fewer."""
        if passed.error is None:
            self.most = passed.rows // 2
            return True
        if passed.rows:
            expected = self.shard.rows + passed.rows
            going_on = self._again(passed.key)
            if not going_on or self.shard.rows != expected:  # it stopped short of the row that raised: that comes again
                return going_on
            if self.store.fault(passed.error) is Fault.EARLIER_WRITES:
                self.most = self.most_ever = passed.rows
                return True
        return self.settle(replace(passed, rows=0, last=self.shard.position))

    def _again(self, stop_before: Key | None) -> bool:
        self.stop_before = stop_before
        try:
            return self._page()
        finally:
            self.stop_before = None
