"""The doors: what a request must show before its body is read."""

from __future__ import annotations

from .base import Door, DoorUnavailableError
from .configured import configured_doors

__all__ = ["Door", "DoorUnavailableError", "configured_doors"]
