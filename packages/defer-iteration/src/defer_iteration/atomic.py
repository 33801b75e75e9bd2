"""`_atomic=True`: what callbacks write and the checkpoint that says so are one transaction, so that a row counts
exactly once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import takewhile
from typing import Any, ClassVar

from .attempt import Attempt, Passed, Why
from .base import IterationStore
from .errors import SpoiltTransactionError
from .iteration import Iteration
from .job import Job
from .shard import Key, Shard


class _Undone(Exception):
    """Carries a pass out of the transaction that it rolls back."""

    def __init__(self, passed: Passed) -> None:
        super().__init__(passed.why)
        self.passed = passed


class AtomicAttempt(Attempt):
    """An attempt whose pages are transactions of the iteration's alias."""

    one_page: ClassVar[bool] = True
    stop_before: Key | None = None
    """The row that raised, while those before it are passed again."""

    def __init__(self, store: IterationStore, iteration: Iteration, shard: Shard, job: Job, until: float) -> None:
        super().__init__(store, iteration, shard, replace(job, callback=self._guarded(job.callback)), until)

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
        page = super().page(after)
        if self.stop_before is None:
            return page
        return takewhile(lambda row: self.rows.key(self.rows.take_key(row)) != self.stop_before, page)

    def _page(self) -> bool:
        """One page and its checkpoint, in one transaction. When a row raises, nothing of the page is left: the rows
        before it are passed again, in a transaction of their own, and then the failure is recorded."""
        try:
            with self.store.transaction():
                passed = self.pass_rows()
                if passed.why in (Why.RAISED, Why.YIELDED):
                    raise _Undone(passed)
                if passed.why is Why.END and (passed.rows or self.stop_before is not None):
                    # the next page will be empty, or begin with the row that raised
                    passed = replace(passed, why=Why.TIME)
                return self.settle(passed)
        except _Undone as undone:
            passed = undone.passed
        self.counted.clear()
        if passed.rows:
            expected = self.shard.rows + passed.rows
            going_on = self._again(passed.key)
            if not going_on or self.shard.rows != expected:  # it stopped short of the row that raised: that comes again
                return going_on
        return self.settle(replace(passed, rows=0, last=self.shard.position))

    def _again(self, stop_before: Key | None) -> bool:
        self.stop_before = stop_before
        try:
            return self._page()
        finally:
            self.stop_before = None
