"""Django settings as a Config: the dict `DEFER`, then `DEFER_*` variables, then Djangae's names, then defaults."""

from __future__ import annotations

import os
import sys
from dataclasses import fields
from datetime import tzinfo
from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections
from django.urls import NoReverseMatch, reverse
from django.utils import timezone, translation

from defer_core.errors import ConfigError
from defer_core.spi import Config, from_environment, on_development_server, on_google_cloud, project_of_environment

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
OTHER_KEYS = {"TAKE_OVER_DJANGAE", "ISOLATE_TESTS", "ITERATION_HISTORY"}
"""The keys of `DEFER` that are no field of the configuration."""
OURS = ("django", "defer_django.stores:task_store", "defer_django.store:DjangoTaskStore")
"""The names of our store in settings."""
NO_DICT = "DEFER is not a dict."
HANDLER = "tasks_deferred_handler"
"""The name of the handler's URL, as in Djangae."""

defaults: dict[str, Any] = {}
"""Defaults of Config fields that packages built on this one set, by name."""


def from_settings() -> Config:
    """Make the configuration from Django's settings and the environment. Raises ConfigError."""
    if not isinstance(getattr(settings, "DEFER", None), dict | None):
        raise ConfigError(NO_DICT)
    explicit = _from_environment()
    explicit |= {key.lower(): value for key, value in given().items() if key in FIELDS}
    fields = {**_automatic(), **defaults}
    if _project() and not _works_locally():
        fields["transport"] = "cloud"  # a Djangae site
    fields |= explicit
    if fields.get("transport") == "cloud":
        project = _project() if "transport" in explicit else {**_fall_back(), **_project()}
        fields["transport_options"] = {**project, **fields.get("transport_options", {})}
    if getattr(settings, "CLOUD_TASKS_QUEUES", None):
        fields.setdefault("queues", settings.CLOUD_TASKS_QUEUES)
    store = fields["store"]
    is_ours = store in OURS or getattr(store, "name", None) == "django"
    if not is_ours and connections.settings[DEFAULT_DB_ALIAS]["ENGINE"] != "django.db.backends.dummy":
        # tasks belong to Django's transactions, whichever store keeps the others
        fields.setdefault("joins", ("django",))
    return Config(**fields)


def project_folder() -> str:
    """Return the folder of default files: the project's, wherever its commands are started."""
    return str(getattr(settings, "BASE_DIR", None) or os.getcwd())


def given() -> dict[str, Any]:
    """Return the dict `DEFER`, or an empty one."""
    said = getattr(settings, "DEFER", None)
    return dict(said) if isinstance(said, dict) else {}


def in_tests() -> bool:
    """Tell whether a test runner has set up Django's test environment."""
    state = getattr(sys.modules.get("django.test.utils"), "_TestState", None)
    return hasattr(state, "saved_data")


def _from_environment() -> dict[str, Any]:
    found = from_environment(os.environ)
    return {key.lower(): getattr(found, key.lower()) for key in FIELDS if f"DEFER_{key}" in os.environ}


def _project() -> dict[str, str]:
    names = {"project": "CLOUD_TASKS_PROJECT_ID", "location": "CLOUD_TASKS_LOCATION"}
    return {key: getattr(settings, name) for key, name in names.items() if getattr(settings, name, None)}


def _fall_back() -> dict[str, str]:
    """Name a project for a Djangae site without one, as in a build or with an emulator."""
    named = on_google_cloud() or project_of_environment()
    return {} if named else {"project": "example"}


def _automatic() -> dict[str, Any]:
    """Return the defaults of a Django project."""
    automatic: dict[str, Any] = {
        "store": "django",
        "keys": (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS),
        "timezone": default_timezone,
        "url": handler_url,
    }
    return {**automatic, "transport": "local"} if _works_locally() else automatic


def _works_locally() -> bool:
    """Tell the one case in which the local queue is automatic: `DEBUG` is on and nothing is configured."""
    said = getattr(settings, "DEFER", None) is not None or "DEFER_TRANSPORT" in os.environ
    return on_development_server() and not said and not on_google_cloud()


def default_timezone() -> tzinfo:
    """Return the zone of a naive `_eta`."""
    return timezone.get_default_timezone()


def handler_url() -> str:
    """Return the path of the handler in this project's URLs, else App Engine's usual one."""
    return named_url() or "/_ah/queue/deferred"


def named_url() -> str | None:
    """Return the path of the handler, or None if the project has no such URL.

    It is the path for a queue's request, which chooses neither a language nor a `urlconf`.
    """
    urls = getattr(settings, "ROOT_URLCONF", None)
    if not urls:
        return None
    with translation.override(_language()):
        try:
            return reverse(HANDLER, urlconf=urls)
        except NoReverseMatch:
            return None


def _language() -> str:
    """Return the language of a request that asks for none, which `i18n_patterns` depend on."""
    chosen = any(each.endswith("LocaleMiddleware") for each in settings.MIDDLEWARE)
    language = settings.LANGUAGE_CODE
    return translation.get_supported_language_variant(language) if chosen else language
