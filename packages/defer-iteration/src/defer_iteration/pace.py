"""When a shard pauses between two rows: for a checkpoint every few seconds, and to hand over before its deadline."""

from __future__ import annotations

from defer_core.stopping import is_stopping

CHECKPOINT_EVERY = 3.0
"""Seconds between two checkpoints: what a crash costs at the most, besides one row."""
LEAST_BUFFER = 0.5
"""Seconds that are always kept for the last checkpoint where no `_buffer_time` is given."""
SAFETY = 1.1
"""The slowest row so far times this is what the next row may take."""
FIRST_DELAY, LONGEST_DELAY = 1.0, 600.0
"""Seconds before a row that raised is called again: they double from the one to the other."""


def delay(attempts: int) -> float:
    """Seconds to wait after a row has raised for the `attempts`th time."""
    return min(FIRST_DELAY * 2 ** min(attempts - 1, 20), LONGEST_DELAY)


class Pace:
    """The clock of one attempt; every time is in seconds since the epoch."""

    def __init__(self, *, now: float, until: float, buffer_time: float | None) -> None:
        self.until = until
        self.buffer_time = buffer_time
        self.longest = 0.0
        self.cost = LEAST_BUFFER
        self.checkpoint_at = now + CHECKPOINT_EVERY

    @property
    def stop_at(self) -> float:
        """From when on no row is begun."""
        if is_stopping():
            return 0.0
        given = self.buffer_time
        return self.until - (max(self.longest * SAFETY, self.cost) if given is None else given)

    @property
    def event_at(self) -> float:
        """When the next pause is due."""
        return min(self.stop_at, self.checkpoint_at)

    def look_at(self, now: float) -> float:
        """When to ask `is_due` again: before that no pause is due, and no row can have been long enough to matter."""
        return min(self.event_at, now + self.cost / SAFETY)

    def is_due(self, began: float, ended: float) -> bool:
        """Note how long the last row took; whether a pause is due."""
        self.longest = max(self.longest, ended - began)
        return ended >= self.event_at

    def checkpointed(self, *, began: float, ended: float) -> None:
        """Note what a checkpoint cost, and when the next one is due."""
        self.cost = max(self.cost, ended - began)
        self.checkpoint_at = ended + CHECKPOINT_EVERY
