"""System checks: what is wrong with the settings, each with the remedy. None of them uses the network."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Tags, Warning, register
from django.db import connections, router
from django.urls import NoReverseMatch, reverse

from defer_core.config import UNCONFIGURED, Config, current, nearest, on_google_cloud
from defer_core.errors import ConfigError
from defer_core.queues import declared

from . import conf
from .models import DeferredTask
from .store import DjangoTaskStore

Apps = Sequence[AppConfig] | None
TABLE = DeferredTask._meta.db_table


@register("defer")
def check_settings(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """The dict `DEFER` and what it says."""
    if not isinstance(getattr(settings, "DEFER", None), dict | None):
        return [Error(conf.NO_DICT, hint='For example DEFER = {"TRANSPORT": "cloud"}.', id="defer.E001")]
    unknown = [_unknown(key) for key in conf.given() if key not in conf.FIELDS | conf.OTHER_KEYS]
    try:
        config = current()
        if config.transport is None:
            hint = UNCONFIGURED.partition("\n")[2]
            return [*unknown, Warning("defer is not configured: tasks go nowhere.", hint=hint, id="defer.W001")]
        _make(config)
        return [
            *unknown,
            *_door(config, deploy=False),
            *_sweep(config),
            *_url(config),
            *_redirect(config),
            *_queues(config),
        ]
    except ConfigError as error:
        return [*unknown, Error(str(error), hint="See the settings DEFER and DEFER_*.", id="defer.E003")]


@register("defer", deploy=True)
def check_door(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """In production nobody could post a task without a door."""
    try:
        return list(_door(current(), deploy=True))
    except ConfigError:
        return []  # `check_settings` says so


@register("defer")
def check_aliases(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Aliases that the routers keep our table from."""
    return [
        Info(
            f"The database {alias!r} has no table {TABLE}, by the word of DATABASE_ROUTERS.",
            hint=f"Tasks deferred with _using={alias!r} are refused unless the routers let `migrate` make it there.",
            id="defer.I001",
        )
        for alias in connections
        if not router.allow_migrate_model(alias, DeferredTask)
    ]


@register(Tags.database)
def check_tables(app_configs: Apps, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Aliases whose table has not been made (`check --database`)."""
    if sys.argv[1:2] == ["migrate"]:  # which runs these checks, and then makes it
        return []
    return [
        Warning(
            f"The database {alias!r} has no table {TABLE}.",
            hint=f"Run `manage.py migrate --database {alias}`.",
            id="defer.W006",
        )
        for alias in databases or ()
        if router.allow_migrate_model(alias, DeferredTask) and not DjangoTaskStore(alias=alias).has_table()
    ]


def _unknown(key: Any) -> CheckMessage:
    known = conf.FIELDS | conf.OTHER_KEYS
    close = nearest(str(key).upper(), set(known)).removeprefix("; did")
    hint = f"Did{close}" if close else f"The keys are {', '.join(sorted(known))}."
    return Error(f"DEFER has no key {key!r}.", hint=hint, id="defer.E002")


def _make(config: Config) -> None:
    """Raises ConfigError for a transport or a door that cannot be made. (The handler is no dependency of this one.)"""
    _ = config.the_transport
    if config.doors and find_spec("defer_gae_handler"):
        import_module("defer_gae_handler.doors").configured_doors(config)


def _door(config: Config, *, deploy: bool) -> Iterator[CheckMessage]:
    doors = config.doors if config.doors is not None else _default_door(config)
    if doors or (config.doors is None and on_google_cloud()):
        return
    if not deploy and config.doors is None and config.transport in (None, "immediate", "memory"):
        return
    hint = 'Say who may post tasks: DEFER = {"DOORS": ["appengine"]}, or "oidc", "cloud-run-iam", "local", or your own.'
    text = "No door is configured: every request to the handler is answered with 403."
    yield Error(text, hint=hint, id="defer.E004") if deploy else Warning(text, hint=hint, id="defer.W002")


def _default_door(config: Config) -> str | None:
    """The transport's own door; None where it has none, or cannot be made, which `check_settings` says."""
    try:
        return config.the_transport.default_door
    except ConfigError:
        return None


def _sweep(config: Config) -> Iterator[CheckMessage]:
    if not config.sweep_interval and config.transport not in ("immediate", "memory"):
        yield Warning(
            "Nothing sweeps by itself: SWEEP_INTERVAL is 0, so what a crash leaves behind waits for a cron job.",
            hint="Run `manage.py defer_sweep` every minute and silence this check, or leave SWEEP_INTERVAL out.",
            id="defer.W003",
        )


def _url(config: Config) -> Iterator[CheckMessage]:
    if config.url is not conf.handler_url or config.transport in ("immediate", "memory"):
        return
    try:
        reverse(conf.HANDLER)
    except (NoReverseMatch, AttributeError):
        yield Warning(
            f"No URL is named {conf.HANDLER!r}: tasks are posted to {conf.handler_url()}, where there may be no view.",
            hint='Add path("_ah/queue/", include("defer_gae_handler.django.urls")) to your URLs, or set DEFER["URL"].',
            id="defer.W004",
        )


def _redirect(config: Config) -> Iterator[CheckMessage]:
    """Queues that post a path do so over HTTP, and take a redirect for a failure."""
    path = config.post_url()
    security = "django.middleware.security.SecurityMiddleware" in settings.MIDDLEWARE and settings.SECURE_SSL_REDIRECT
    exempt = any(re.search(pattern, path.lstrip("/")) for pattern in settings.SECURE_REDIRECT_EXEMPT)
    if security and path.startswith("/") and not exempt:
        yield Warning(
            f"SECURE_SSL_REDIRECT answers tasks, which may come to {path} over HTTP, with a redirect: they never run.",
            hint=f"SECURE_REDIRECT_EXEMPT = [r'^{path.lstrip('/')}']",
            id="defer.W005",
        )


def _queues(config: Config) -> Iterator[CheckMessage]:
    """A warning, for tasks do not need the declarations, and Djangae passes over what it does not know."""
    try:
        declared(config)
    except ConfigError as error:
        hint = "Until it is mended, `manage.py defer_queues` refuses DEFER['QUEUES'] or CLOUD_TASKS_QUEUES."
        yield Warning(str(error), hint=hint, id="defer.W007")
