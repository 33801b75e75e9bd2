"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class DeferIterationConfig(AppConfig):
    """Models, the command, and the sweeper that wakes stalled shards."""

    name = "defer_iteration"
    label = "defer_iteration"
    verbose_name = "Deferred iterations"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from defer_core.sweep import register_sweeper

        from .sweeper import wake_stalled

        register_sweeper("woken", wake_stalled)
