"""What happens once when Django begins to load its apps, whichever app of this package is installed."""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


def start() -> None:
    """Accept what older libraries have queued, register the checks, take over a real Djangae where settings say so."""
    from defer_django import conf

    from . import checks, takeover  # noqa: F401 (checks register themselves)

    conf.defaults["accept_legacy_pickles"] = True
    if conf.given().get("TAKE_OVER_DJANGAE"):
        takeover.install()


def refuse_both(ours: str, theirs: str) -> None:
    """Raises ImproperlyConfigured where INSTALLED_APPS names one app under both of its names."""
    if any(each == ours or each.startswith(f"{ours}.apps.") for each in settings.INSTALLED_APPS):
        raise ImproperlyConfigured(
            f'INSTALLED_APPS has both "{theirs}" and "{ours}", which are the same app (defer-djangae gives back '
            "the names of Djangae): take one of them out."
        )
