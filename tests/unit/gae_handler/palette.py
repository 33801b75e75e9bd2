"""What no project would import by itself, but `painter`."""

from __future__ import annotations

import enum


class Shade(enum.Enum):
    DARK = 1
