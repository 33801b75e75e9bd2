"""When a shard gives away parts of what is left of its range, and how many: when others are done, and each part is
worth a task of its own."""

from __future__ import annotations

from collections.abc import Sequence

from defer_core.spi import clock

from ..model.iteration import Iteration
from ..model.shard import Key, KeyRange, Shard
from ..rows.base import Rows
from ..stores.base import IterationStore
from .timing import CHECKPOINT_EVERY, Pace

WORTH = CHECKPOINT_EVERY
"""The least seconds of work of a part, as long as the attempt's last rows took."""
MOST = 32
"""The most parts of one division."""


class Division:
    """What one attempt knows of its pace, and of how much is left of its shard."""

    def __init__(self, store: IterationStore, rows: Rows, iteration: Iteration, shard: Shard, pace: Pace) -> None:
        self.store, self.rows, self.is_on = store, rows, iteration.options.rebalance
        self.pace = pace
        self.left: int | None = None
        """How many rows are left, once they were counted."""
        self.passed = shard.rows
        self.began = self.at = clock.now()
        """When `passed` rows were passed."""
        self.look_at = pace.checkpoint_at
        """When to look again whether shards are done."""

    def ranges(self, shard: Shard) -> Sequence[KeyRange]:
        """Return the ranges that a shard is to be divided into after a checkpoint; fewer than two are none."""
        now = clock.now()
        if not self.is_on or now < self.look_at:
            return ()
        rows, seconds = shard.rows - self.passed, now - self.at
        self.passed, self.at, self.look_at = shard.rows, now, now + CHECKPOINT_EVERY
        if self.left is not None:
            self.left -= rows
        if rows < 1:
            return ()
        done, still_open = self.store.slots(shard.iteration_id)
        if not done:
            return ()
        if self.left is None:
            self.left = self.rows.count(shard.range, shard.position)
        if self.left is None:  # too many to be counted, perhaps
            self.look_at = now + max(now - self.began, CHECKPOINT_EVERY)
            return ()
        mean = seconds / rows
        a_row = (mean + max(mean, self.pace.last)) / 2  # the last row may be the first of many that take longer
        parts = min(1 + -(-done // max(still_open, 1)), int(self.left * a_row / WORTH), self.left, MOST)
        return self.rows.divide(shard.range, shard.position, parts, self.left) if parts > 1 else ()

    def ranges_beyond(self, shard: Shard, key: Key) -> Sequence[KeyRange]:
        """Return the ranges up to a row that has raised and beyond it, so that no other row waits for it; fewer than
        two if no shard is done."""
        if not self.is_on or not self.store.slots(shard.iteration_id)[0]:
            return ()
        return self.rows.divide_at(shard.range, key)

    def given(self, parts: int) -> None:
        """Take into account that so many parts were given away."""
        if self.left is not None:
            self.left //= parts + 1
        self.at = clock.now()
