"""Run once when Django begins to load its apps, for any app of this package."""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


def start() -> None:
    """Accept bodies of older libraries, register the checks, take over a real Djangae if settings ask for that."""
    from defer_django import conf

    from . import checks, takeover  # noqa: F401 (checks register themselves)

    conf.defaults["accept_legacy_pickles"] = True
    if conf.given().get("TAKE_OVER_DJANGAE"):
        takeover.install()


def refuse_both(ours: str, theirs: str) -> None:
    """Raise ImproperlyConfigured if INSTALLED_APPS has one app under both of its names."""
    if any(each == ours or each.startswith(f"{ours}.apps.") for each in settings.INSTALLED_APPS):
        raise ImproperlyConfigured(
            f'INSTALLED_APPS has both "{theirs}" and "{ours}", which are the same app (defer-djangae gives back '
            "the names of Djangae): take one of them out."
        )
