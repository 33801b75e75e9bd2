"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class DeferIterationConfig(AppConfig):
    """The tables, the command, and the sweepers: what has stalled is requeued, what ended long ago is forgotten."""

    name = "defer_iteration"
    label = "defer_iteration"
    verbose_name = _("Deferred iterations")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from defer_core.spi import register_section, register_sweeper

        from . import checks, summary  # noqa: F401 (checks register themselves)
        from .protocol.sweeper import forget_ended, requeue_stalled
        from .stores.routing import all_stores
        from .tasks import all_schedulers

        register_section("iterations", summary.rows)
        register_sweeper("requeued", lambda until: requeue_stalled(all_schedulers(), until))
        register_sweeper("forgotten", lambda until: forget_ended(all_stores(), until))
