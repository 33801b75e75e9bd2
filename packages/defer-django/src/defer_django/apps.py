"""The Django app: what it tells core once Django has loaded. No network and no database are touched here."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from django.apps import AppConfig
from django.core.signals import setting_changed


class DeferDjangoConfig(AppConfig):
    """The app `defer_django`."""

    name = "defer_django"
    label = "defer_django"
    verbose_name = "Deferred tasks"
    default_auto_field = "django.db.models.BigAutoField"

    def __init__(self, app_name: str, app_module: Any) -> None:
        super().__init__(app_name, app_module)
        _take_over_djangae()

    def ready(self) -> None:
        from defer_core.config import set_source

        from . import checks, conf, instances  # noqa: F401 (checks register themselves)

        instances.register()
        set_source(conf.from_settings)
        setting_changed.connect(_forget_settings, dispatch_uid="defer_django")


def _take_over_djangae() -> None:
    """The key is defer_djangae's, which need not be among the apps; it acts before any model imports Djangae."""
    from . import conf

    if conf.given().get("TAKE_OVER_DJANGAE") and find_spec("defer_djangae"):
        import_module("defer_djangae.starting").start()


def _forget_settings(*, setting: str, **kwargs: Any) -> None:
    """`override_settings` in tests: read the settings again when next asked."""
    from defer_core.config import forget

    from .conf import SETTINGS

    if setting in SETTINGS:
        forget()
