"""The time, in one place, so that a simulation can have its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_source: Callable[[], float] = time.time


def now() -> float:
    """Return the seconds since the epoch."""
    return _source()


def since(began: float) -> float:
    """Return the seconds since `began` (seconds since the epoch); 0.0 where the clock was set back."""
    return max(0.0, now() - began)


def source() -> Callable[[], float]:
    """Return the function that `now()` calls, for loops that cannot afford two calls."""
    return _source


@contextmanager
def replaced(source: Callable[[], float]) -> Iterator[None]:
    """Take the time from `source` in a `with` block (tests and simulations)."""
    global _source
    previous, _source = _source, source
    try:
        yield
    finally:
        _source = previous
