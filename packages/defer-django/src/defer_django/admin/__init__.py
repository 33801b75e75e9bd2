"""Task records in Django's admin: what needs a person, why, and what can be done about it."""

from __future__ import annotations

from .tasks import DeferredTaskAdmin

__all__ = ["DeferredTaskAdmin"]
