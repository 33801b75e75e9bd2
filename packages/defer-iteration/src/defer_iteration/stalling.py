"""When an attempt counts as stalled."""

from __future__ import annotations

from defer_core import clock
from defer_core.config import current
from defer_core.delivery import DEFAULT_DEADLINE, current_delivery

LONGEST_GRACE = 3600.0
"""Seconds to which the grace grows."""


def grace(wakes: int) -> float:
    """Seconds past its ETA or deadline at which a task counts as stalled: doubles with each wake, an hour at the
    most."""
    base = max(current().sweep_grace, 1.0)
    return min(base * 2 ** min(wakes, 20), LONGEST_GRACE)


def deadline() -> float:
    """When this attempt will be cut off, in seconds since the epoch."""
    delivery = current_delivery()
    if delivery is None:
        return clock.now() + DEFAULT_DEADLINE
    return clock.now() + delivery.seconds_left()
