"""`djangae.tasks.handlers`: the view that authenticates and runs tasks."""

from __future__ import annotations

from defer_gae_handler.django.views import deferred_handler

__all__ = ["deferred_handler"]
