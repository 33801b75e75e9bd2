"""The Django app: what it tells core once Django has loaded. No network and no database are touched here."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from django.apps import AppConfig
from django.core.signals import setting_changed
from django.utils.translation import gettext_lazy

from defer_core.spi import Config


class DeferDjangoConfig(AppConfig):
    """The app `defer_django`."""

    name = "defer_django"
    label = "defer_django"
    verbose_name = gettext_lazy("Deferred tasks")
    default_auto_field = "django.db.models.BigAutoField"

    def __init__(self, app_name: str, app_module: Any) -> None:
        super().__init__(app_name, app_module)
        _take_over_djangae()

    def ready(self) -> None:
        from defer_core.spi import add_layer, register_observer, register_section, register_sweeper
        from defer_core.testing import settlers

        from . import checks, counts, instances, statistics  # noqa: F401 (checks register themselves)

        instances.register()
        _read_settings()
        add_layer(_isolate)
        register_observer("statistics", statistics.count)
        register_section("by_queue", counts.rows)
        register_sweeper("statistics", statistics.write)
        settlers["django"] = _settle
        setting_changed.connect(_forget_settings, dispatch_uid="defer_django")


def _take_over_djangae() -> None:
    """Start defer_djangae, which need not be among the apps, before any model imports Djangae."""
    from . import conf

    if conf.given().get("TAKE_OVER_DJANGAE") and find_spec("defer_djangae"):
        import_module("defer_djangae.starting").start()


def _isolate(config: Config) -> Config | None:
    """Give each test a queue of its own in Django's test environment, without importing that in production."""
    if "django.test.utils" not in sys.modules:
        return None
    from . import testing

    return testing.layer(config)


def _settle() -> None:
    """Send what a TestCase never commits before a test looks at its queue."""
    from . import testing

    testing.settle()


def _read_settings() -> None:
    """Let Django's settings be the configuration; read them when it is next asked for."""
    from defer_core.spi import set_source

    from . import conf

    set_source(conf.from_settings, conf.project_folder)


def _forget_settings(*, setting: str, **kwargs: Any) -> None:
    """Read the settings again after `override_settings` in a test."""
    from .conf import SETTINGS

    if setting in SETTINGS:
        _read_settings()
