"""When an attempt pauses, ends, is tried again, and counts as stalled."""

from __future__ import annotations

from time import sleep

from defer_core import current_delivery, is_stopping
from defer_core.spi import DEFAULT_DEADLINE, clock, current

CHECKPOINT_EVERY = 3.0
"""Seconds between two checkpoints: the most that a crash costs, besides one row."""
LEAST_BUFFER = 0.5
"""Seconds that are always kept for the last checkpoint if no `_buffer_time` is given."""
SAFETY = 1.1
"""The next row may take this many times as long as the slowest row so far."""
FIRST_DELAY, LONGEST_DELAY = 1.0, 600.0
"""Seconds before a row that raised is called again: they double from the first to the longest."""
LONGEST_WAIT = 5.0
"""Seconds that a worker waits at most, before a shard that is throttled goes on."""
LONGEST_GRACE = 3600.0
"""Seconds that the grace grows to."""


def deadline() -> float:
    """Return when this attempt will be cut off, in seconds since the epoch."""
    delivery = current_delivery()
    return clock.now() + (DEFAULT_DEADLINE if delivery is None else delivery.seconds_left())


def grace(requeues: int) -> float:
    """Return how many seconds past its ETA or deadline a task counts as stalled. They double with each requeue, up to
    an hour."""
    base = max(current().sweep_grace, 1.0)
    return min(base * 2 ** min(requeues, 20), LONGEST_GRACE)


def delay(attempts: int) -> float:
    """Return how many seconds to wait after a row has raised `attempts` times."""
    return min(FIRST_DELAY * 2 ** min(attempts - 1, 20), LONGEST_DELAY)


class Pace:
    """The clock of one attempt: it pauses between two rows, for a checkpoint every few seconds, and to hand over before
    its deadline. Every time is in seconds since the epoch."""

    def __init__(self, *, now: float, until: float, buffer_time: float | None) -> None:
        self.until = until
        self.buffer_time = buffer_time
        self.longest = 0.0
        self.last = 0.0
        """How many seconds the last row took that was looked at."""
        self.cost = LEAST_BUFFER
        self.checkpoint_at = now + CHECKPOINT_EVERY

    @property
    def stop_at(self) -> float:
        """The time after which no row is begun."""
        if is_stopping():
            return 0.0
        if self.buffer_time is not None:
            return self.until - self.buffer_time
        return self.until - max(self.longest * SAFETY, self.cost)

    @property
    def pause_at(self) -> float:
        """The time of the next pause."""
        return min(self.stop_at, self.checkpoint_at)

    def look_at(self, now: float) -> float:
        """Return when to ask `is_due` again, in half a second at most: before that, no pause is due by the clock and no
        row can have taken too long, but the process may have been told to end."""
        return min(self.pause_at, now + LEAST_BUFFER / SAFETY)

    def is_due(self, began: float, ended: float, rows: int = 1) -> bool:
        """Take into account how long the last row took, or the last `rows` together, and return whether a pause is
        due."""
        self.longest = max(self.longest, ended - began)
        self.last = (ended - began) / rows
        return ended >= self.pause_at

    def wait(self, until: float) -> bool:
        """Sleep until then, and return whether that was reached: not if it is further away than a worker should wait,
        or if the attempt must stop before."""
        if until > clock.now() + LONGEST_WAIT:
            return False
        while (now := clock.now()) < until < self.stop_at:
            sleep(min(until - now, LEAST_BUFFER))
        return now >= until

    def checkpointed(self, *, began: float, ended: float) -> None:
        """Take into account what a checkpoint cost; the next one is due a few seconds after its end."""
        self.cost = max(self.cost, ended - began)
        self.checkpoint_at = ended + CHECKPOINT_EVERY
