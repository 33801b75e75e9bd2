"""The Django app `defer_djangae`, for sites on which the real Djangae stays; the shims' own apps do the same."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig

from .starting import start


class DeferDjangaeConfig(AppConfig):
    """An app without models, with the checks; it takes over `djangae.tasks.deferred` if settings ask for that."""

    name = "defer_djangae"
    label = "defer_djangae"
    verbose_name = "Djangae's names for deferred tasks"

    def __init__(self, app_name: str, app_module: Any) -> None:
        super().__init__(app_name, app_module)
        start()
