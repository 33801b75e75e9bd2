"""How long named iterations are kept in Django's databases: `DEFER["ITERATION_HISTORY"]`."""

from __future__ import annotations

from math import inf

from defer_core.errors import ConfigError
from defer_django import conf

from .base import HISTORY

KEY = "ITERATION_HISTORY"


def retention() -> float | None:
    """Return for how many seconds they are kept once they are over; None is for ever. Raise ConfigError."""
    seconds = conf.given().get(KEY, HISTORY)
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < inf:
        raise ConfigError(f'DEFER["{KEY}"] is {seconds!r}: give a number of seconds, or None to keep them for ever.')
    return float(seconds)
