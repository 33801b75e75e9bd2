"""The settings, the URLs and the task of a Django project that says nothing of defer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SECRET_KEY = "django-site-" + "k" * 50
DEBUG = True
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["django.contrib.contenttypes", "defer_django"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(Path("site.sqlite3").absolute())}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "django_urls"
USE_TZ = True


def note(number: int) -> None:
    """A task: writes its number down."""
    with Path("ledger").open("a") as ledger:
        ledger.write(f"{number}\n")


def defer_note(number: int) -> Any:
    """Defer it, by the name that the server knows it under."""
    from defer_core import defer

    return defer(note, number)
