"""`_atomic=True`: what callbacks write and the checkpoint that says so are one transaction, so that a row counts
exactly once."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from typing import Any

from .attempt import Attempt, Passed, Why
from .shard import Key


class _Undone(Exception):
    """Carries a pass out of the transaction that it rolls back."""

    def __init__(self, passed: Passed) -> None:
        super().__init__(passed.why)
        self.passed = passed


class AtomicAttempt(Attempt):
    """An attempt whose pages are transactions of the iteration's alias."""

    def run(self) -> None:
        while self._page(None):
            pass

    def _page(self, stop_before: Key | None) -> bool:
        """One page and its checkpoint, in one transaction. When a row raises, nothing of the page is left: the rows
        before it are passed again, in a transaction of their own, and then the failure is recorded."""
        try:
            with self.store.transaction(), closing(self._one_page(stop_before)) as stream:
                passed = self.pass_rows(stream)
                if passed.why in (Why.RAISED, Why.YIELDED):
                    raise _Undone(passed)
                if passed.why is Why.END and (passed.rows or stop_before is not None):
                    passed = replace(passed, why=Why.TIME)
                return self.settle(passed)
        except _Undone as undone:
            passed = undone.passed
        except BaseException:
            self.counted.clear()
            raise
        self.counted.clear()
        if passed.rows and not self._page(passed.key):
            return False
        return self.settle(replace(passed, rows=0, last=self.shard.position))

    def _one_page(self, stop_before: Key | None) -> Generator[tuple[Key, Any], None, None]:
        for page in self.rows.pages(self.shard.range, self.shard.position):
            for key, row in page:
                if key == stop_before:
                    return
                yield key, row
            return
