"""How long an attempt waits before it passes more rows: by `_max_rows_per_second`, and by what `_throttle` returns."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from defer_core.spi import clock, finished


class Throttle:
    """Asked before each page of one attempt. A shard that has passed what it may in a second waits for the rest of
    it."""

    def __init__(self, ask: Callable[[], Any] | None, rows_per_second: float | None, *, rows: int) -> None:
        self.ask, self.rows_per_second = ask, rows_per_second
        self.rows, self.since = rows, clock.now()
        """Rows of the shard before the last page, and when that began."""

    @property
    def page(self) -> int | None:
        """How many rows may be passed between two questions; None is any number."""
        return None if self.rows_per_second is None else max(int(self.rows_per_second), 1)

    def next_at(self, rows: int) -> float:
        """Return when to pass the next rows, in seconds since the epoch, now that the shard has passed so many. Raise
        TypeError for what `_throttle` may not return, and what it raises."""
        now = clock.now()
        paced_at = self._paced_at(rows, now)
        self.rows, self.since = rows, max(paced_at, now)
        return max(paced_at, now + self._asked())

    def _paced_at(self, rows: int, now: float) -> float:
        if self.rows_per_second is None:
            return now
        return self.since + (rows - self.rows) / self.rows_per_second

    def _asked(self) -> float:
        if self.ask is None:
            return 0.0
        answer = finished(self.ask())
        if answer is None or answer is False:
            return 0.0
        if isinstance(answer, bool) or not isinstance(answer, int | float) or not (0 <= answer < math.inf):
            raise TypeError(f"_throttle returned {answer!r}: it must return a number of seconds to wait, or None.")
        return float(answer)
