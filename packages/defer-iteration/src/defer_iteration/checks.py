"""The system checks of iterations."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error, register

from defer_core.errors import ConfigError

from .stores.retention import retention


@register("defer")
def check_installed(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Report that the tables of tasks are missing, which iterations need beside their own."""
    if apps.is_installed("defer_django"):
        return []
    hint = 'Add "defer_django" to INSTALLED_APPS.'
    return [Error("defer_iteration is installed without defer_django.", hint=hint, id="defer.E006")]


@register("defer")
def check_history(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Report an ITERATION_HISTORY that is no number of seconds."""
    try:
        retention()
    except ConfigError as error:
        return [Error(str(error), hint='For example DEFER = {"ITERATION_HISTORY": 7 * 86400}.', id="defer.E007")]
    return []
