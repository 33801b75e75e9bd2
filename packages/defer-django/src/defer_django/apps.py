"""The Django app: what it tells core once Django has loaded. No network and no database are touched here."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.core.signals import setting_changed


class DeferDjangoConfig(AppConfig):
    """The app `defer_django`."""

    name = "defer_django"
    label = "defer_django"
    verbose_name = "Deferred tasks"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from defer_core.config import set_source

        from . import checks, conf, instances  # noqa: F401 (checks register themselves)

        instances.register()
        set_source(conf.from_settings)
        setting_changed.connect(_forget_settings, dispatch_uid="defer_django")


def _forget_settings(*, setting: str, **kwargs: Any) -> None:
    """`override_settings` in tests: read the settings again when next asked."""
    from defer_core.config import forget

    from .conf import SETTINGS

    if setting in SETTINGS:
        forget()
