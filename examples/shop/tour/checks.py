"""What the demonstration has checked."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

PATIENCE = 20.0
"""Seconds that a task is given to have its effect."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One sentence, and whether it held."""

    scene: str
    """What it belongs to."""
    claim: str
    """The sentence."""
    held: bool
    """Whether it is true."""
    detail: str = ""
    """What was seen."""


def seen(condition: Callable[[], object], seconds: float = PATIENCE) -> bool:
    """Wait until a condition holds. Returns whether it came to that."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())
