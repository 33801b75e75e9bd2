"""System checks: which Djangae is live, and what a Djangae site needs beside it."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error, Info, Warning, register

from .paths import PATHS, live


@register
def which_djangae(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report which Djangae is live: the real one, taken over (`I001`) or not (`W001`); ours (`I002`); none (`W002`)."""
    from defer_django.conf import given

    found, taken = live(), bool(given().get("TAKE_OVER_DJANGAE"))
    if found == "shim":
        hint = "There is nothing to take over: leave TAKE_OVER_DJANGAE out." if taken else None
        return [Info(f"djangae.* is live in {PATHS}: it is defer-djangae's own.", hint=hint, id="defer_djangae.I002")]
    if found == "missing":
        hint = "Call defer_djangae.install_paths() before Django starts: `pip install --target` ignores .pth files."
        return [Warning("The names of djangae.* are not on sys.path.", hint=hint, id="defer_djangae.W002")]
    if taken:
        text = f"The real Djangae in {found} is live; its djangae.tasks.deferred is taken over."
        return [Info(text, id="defer_djangae.I001")]
    text = f"The real Djangae in {found} is live, and defers with its own code."
    hint = 'Set DEFER = {"TAKE_OVER_DJANGAE": True} to have its djangae.tasks.deferred replaced, or uninstall Djangae.'
    return [Warning(text, hint=hint, id="defer_djangae.W001")]


@register
def both_apps(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report `defer_djangae.E001` if one of the two apps is missing."""
    missing = [f'"{theirs}"' for ours, theirs in APPS.items() if not apps.is_installed(ours)]
    if not missing:
        return []
    hint = f"Add {' and '.join(missing)} to INSTALLED_APPS, and run `migrate`."
    return [Error("The tables of deferred tasks are not all installed.", hint=hint, id="defer_djangae.E001")]


APPS = {"defer_django": "djangae.tasks", "defer_iteration": "djangae"}
"""Our apps, and the names that they have on a Djangae site."""
