"""`djangae.tasks.handlers`: the view that runs tasks, behind the doors that are configured."""

from __future__ import annotations

from defer_gae_handler.django.views import deferred_handler

__all__ = ["deferred_handler"]
