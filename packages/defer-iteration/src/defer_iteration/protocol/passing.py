"""Rows are passed to the callback, page by page, until something is due."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import chain
from typing import Any

from defer_core.spi import clock, failure_of, finished

from ..context import CurrentShard
from ..errors import HeldError, TimeoutException
from ..model import counters
from ..model.counters import Part
from ..model.shard import Key, KeyRange
from ..rows.base import Rows
from ..rows.pages import PageSize
from .job import Job
from .timing import Pace


class StopReason(Enum):
    """Why a pass over rows stopped."""

    END = "end"
    """There are no more rows."""
    TIME = "time"
    """A checkpoint is due, the deadline is near, or the process is about to end."""
    RAISED = "raised"
    """The callback raised for one row."""
    HALVED = "halved"
    """The callback raised for a batch of several rows, which are to be passed in smaller ones."""
    YIELDED = "yielded"
    """The callback raised TimeoutException."""
    PAGE = "page"
    """The page is finished, and was not the last."""
    UNREAD = "unread"
    """A row could not be read."""


@dataclass(frozen=True, kw_only=True)
class PassResult:
    """What a pass over rows came to."""

    reason: StopReason
    """Why it stopped."""
    last: Key | None
    """The last key finished."""
    rows: int
    """How many rows were finished."""
    counted: Mapping[str, Part] = field(default_factory=dict)
    """What the callback counted in these rows."""
    key: Key | None = None
    """The row whose callback raised, or the first of its batch."""
    error: Exception | None = None
    """What the callback raised, or what was raised in reading a row."""
    asked: int = 0
    """One of this many rows could not be read, or raises in its batch."""


_NONE: Any = object()
"""Stands for no row."""


class RowPasser:
    """Passes the rows of a range to a callback."""

    one_page: bool = False
    """Whether a pass ends with its page."""

    def __init__(self, job: Job, rows: Rows, within: KeyRange, pace: Pace, current: CurrentShard) -> None:
        self.call = job.call
        self.rows, self.within, self.pace, self.current = rows, within, pace, current
        self.size = PageSize(rows.limit)

    def pass_at_most(self, rows: int) -> None:
        """End each pass after so many rows."""
        self.one_page, self.size.most = True, min(self.size.most, rows)

    def page(self, after: Key | None) -> Iterator[Any]:
        """Yield the next rows beyond a key."""
        return self.rows.page(self.within, after)

    def rows_wanted(self, now: float) -> int:
        """Return how many rows to ask for in the next page."""
        return self.size.wanted(self.pace.pause_at - now)

    def pass_rows(self, after: Key | None) -> PassResult:
        """Pass the rows beyond a key until something is due: at least one, or no attempt would make progress.

        Raise HeldError if the same rows come again, by a field whose value changes when it is read and written."""
        rows, counted = 0, dict[str, Part]()
        while True:
            result = self._pass_page(after, counted)
            after, rows = result.last, rows + result.rows
            is_to_be_halved = result.reason is StopReason.UNREAD and result.asked > 1
            if self.one_page or not (is_to_be_halved or result.reason is StopReason.PAGE):
                return replace(result, rows=rows, counted=counted)

    def _pass_page(self, after: Key | None, counted: dict[str, Part]) -> PassResult:
        # every row runs through this loop: what it uses is in local variables
        call, take_key, now = self.call, self.rows.take_key, clock.source()
        counting, pace = self.current.counted, self.pace
        last, rows = _NONE, 0
        at = began = now()
        look_at = pace.look_at(began)
        wanted = self.rows_wanted(began)
        full = self.rows.ask_for(wanted)
        try:
            page = self.page(after)
            if (first := next(page, _NONE)) is _NONE:
                return PassResult(reason=StopReason.END, last=after, rows=0)
            self.size.weigh(first)
            for row in chain((first,), page):
                key = take_key(row)
                try:
                    result = call(row)
                    if result is not None:
                        finished(result)
                except (Exception, SystemExit) as raised:
                    error = failure_of(raised)
                    counting.clear()
                    reason = StopReason.YIELDED if isinstance(error, TimeoutException) else StopReason.RAISED
                    return PassResult(
                        reason=reason, last=self._key(last, after), rows=rows, key=self.rows.key(key), error=error
                    )
                last = key
                rows += 1
                if counting:
                    counters.add(counted, counting)
                    counting.clear()
                before = at
                at = now()
                if at >= look_at:
                    if pace.is_due(before, at):
                        self.size.passed(wanted, rows, at - began)
                        return PassResult(reason=StopReason.TIME, last=self._key(last, after), rows=rows)
                    look_at = pace.look_at(at)
        except Exception as error:
            return self._unread(error, wanted, rows, self._key(last, after))
        self.size.weigh(row)
        self.size.passed(wanted, rows, at - began)
        return self._passed(after, self._key(last, after), rows, full)

    def _passed(self, after: Key | None, reached: Key | None, rows: int, full: int) -> PassResult:
        """Return the result of a page that was passed to its end. Raise HeldError if its rows are those before it."""
        if reached == after:
            raise HeldError(
                "The rows up to the last key came back as those beyond it. The order value changes when read "
                "from and written to the database: cancel() and start again with another order_field."
            )
        return PassResult(reason=StopReason.END if rows < full else StopReason.PAGE, last=reached, rows=rows)

    def _unread(self, error: Exception, wanted: int, rows: int, last: Key | None) -> PassResult:
        """Return the result of a page that could not be read to its end. If some of its rows were passed, the next one
        is the cause, because rows are made one by one. Raise the error if no row can be the cause."""
        if not self.rows.is_of_row(error):
            raise error
        self.size.suspects = 2 if rows else wanted
        if rows:
            return PassResult(reason=StopReason.PAGE, last=last, rows=rows)
        return PassResult(reason=StopReason.UNREAD, last=last, rows=rows, asked=wanted, error=error)

    def located(self, result: PassResult) -> PassResult:
        """Return the failure of the one row that could not be read; its key is read by itself."""
        key = self.rows.next_key(self.within, result.last)
        return replace(result, reason=StopReason.TIME if key is None else StopReason.RAISED, key=key)

    def _key(self, taken: Any, after: Key | None) -> Key | None:
        return after if taken is _NONE else self.rows.key(taken)
