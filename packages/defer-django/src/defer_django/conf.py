"""Django settings as a Config: the dict `DEFER`, then `DEFER_*` variables, then Djangae's names, then defaults."""

from __future__ import annotations

import os
from dataclasses import fields
from datetime import tzinfo
from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections
from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from defer_core.config import STORES, Config, from_environment, on_google_cloud
from defer_core.errors import ConfigError

SETTINGS = frozenset(
    (
        "DEFER",
        "SECRET_KEY",
        "SECRET_KEY_FALLBACKS",
        "DEBUG",
        "CLOUD_TASKS_PROJECT_ID",
        "CLOUD_TASKS_LOCATION",
        "CLOUD_TASKS_QUEUES",
    )
)
"""The settings that a Config is made of."""
FIELDS = frozenset(each.name.upper() for each in fields(Config))
"""The keys of `DEFER` that are core's."""
OTHER_KEYS = {"TAKE_OVER_DJANGAE"}
"""The keys of `DEFER` that other packages read."""
NO_DICT = "DEFER is no dict."
HANDLER = "tasks_deferred_handler"
"""The name of the handler's URL, as in Djangae."""

defaults: dict[str, Any] = {}
"""Config fields by name that packages built on this one change the defaults of."""


def from_settings() -> Config:
    """The configuration that Django's settings and the environment give. Raises ConfigError."""
    if not isinstance(getattr(settings, "DEFER", None), dict | None):
        raise ConfigError(NO_DICT)
    fields = {**_automatic(), **defaults, **_from_djangae(), **_from_environment(), **_from_dict()}
    if fields.get("transport") == "cloud":
        fields["transport_options"] = {**_project(), **fields.get("transport_options", {})}
    if getattr(settings, "CLOUD_TASKS_QUEUES", None):
        fields.setdefault("queues", settings.CLOUD_TASKS_QUEUES)
    if not _is_ours(fields["store"]) and _has_database():
        fields.setdefault("joins", ("django",))  # a task belongs to Django's transaction wherever plain ones are kept
    return Config(**fields)


def _is_ours(store: Any) -> bool:
    return store in ("django", STORES["django"]) or getattr(store, "name", None) == "django"


def _has_database() -> bool:
    return bool(connections.settings[DEFAULT_DB_ALIAS]["ENGINE"] != "django.db.backends.dummy")


def given() -> dict[str, Any]:
    """The dict `DEFER`, empty where there is none."""
    said = getattr(settings, "DEFER", None)
    return dict(said) if isinstance(said, dict) else {}


def _from_dict() -> dict[str, Any]:
    """What `DEFER` sets; keys that nobody knows are for the system checks to name."""
    return {key.lower(): value for key, value in given().items() if key in FIELDS}


def _from_environment() -> dict[str, Any]:
    found = from_environment(os.environ)
    return {key.lower(): getattr(found, key.lower()) for key in FIELDS if f"DEFER_{key}" in os.environ}


def _from_djangae() -> dict[str, Any]:
    """Djangae's names mean Cloud Tasks where nothing else says where tasks go."""
    return {"transport": "cloud"} if _project() and not _works_locally() else {}


def _project() -> dict[str, str]:
    names = {"project": "CLOUD_TASKS_PROJECT_ID", "location": "CLOUD_TASKS_LOCATION"}
    return {key: getattr(settings, name) for key, name in names.items() if getattr(settings, name, None)}


def _automatic() -> dict[str, Any]:
    """What holds in a Django project that says nothing."""
    automatic: dict[str, Any] = {
        "store": "django",
        "keys": (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS),
        "timezone": default_timezone,
        "url": handler_url,
    }
    return {**automatic, "transport": "local"} if _works_locally() else automatic


def _works_locally() -> bool:
    """The one automatic case: `DEBUG` is on and nothing is configured."""
    said = getattr(settings, "DEFER", None) is not None or "DEFER_TRANSPORT" in os.environ
    return bool(settings.DEBUG) and not said and not on_google_cloud()


def default_timezone() -> tzinfo:
    """The zone of a naive `_eta`."""
    return timezone.get_default_timezone()


def handler_url() -> str:
    """The path of the handler in this project's URLs, else App Engine's usual one."""
    if getattr(settings, "ROOT_URLCONF", None):
        try:
            return reverse(HANDLER)
        except NoReverseMatch:
            pass
    return "/_ah/queue/deferred"
