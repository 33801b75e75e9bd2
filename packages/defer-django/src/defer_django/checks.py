"""System checks of the settings, each with the remedy. None of them uses the network."""

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

from defer_core.errors import ConfigError
from defer_core.spi import Config, as_configured, current, declared_queues, nearest, on_google_cloud, require_extras

from . import conf
from .models import DeferredTask
from .stores import task_store

Apps = Sequence[AppConfig] | None
TABLE = DeferredTask._meta.db_table


@register("defer")
def check_settings(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Check the dict `DEFER` and the configuration that it makes."""
    if not isinstance(getattr(settings, "DEFER", None), dict | None):
        return [Error(conf.NO_DICT, hint='For example DEFER = {"TRANSPORT": "cloud"}.', id="defer.E001")]
    unknown = [_unknown(key) for key in conf.given() if key not in conf.FIELDS | conf.OTHER_KEYS]
    try:
        config = as_configured()
        if current() is not config:
            return [*unknown]  # a test run, which sends nothing to the configured queue
        if config.transport is None:
            return [*unknown, _unconfigured(config)]
        _make(config)
        return [
            *unknown,
            *_authenticators(config, deploy=False),
            *_sweep(config),
            *_url(config),
            *_redirect(config),
            *_queues(config),
        ]
    except ConfigError as error:
        return [*unknown, Error(str(error), hint="See the settings DEFER and DEFER_*.", id="defer.E003")]


@register("defer", deploy=True)
def check_authenticators(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Require an authenticator in production: without one every task is refused."""
    try:
        return list(_authenticators(as_configured(), deploy=True))
    except ConfigError:
        return []  # which `check_settings` reports


@register("defer")
def check_aliases(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Name the aliases that the routers keep our table from."""
    return [
        Info(
            f"The database {alias!r} has no table {TABLE}, because of DATABASE_ROUTERS.",
            hint=f"Tasks deferred with _using={alias!r} are refused unless the routers let `migrate` make it there.",
            id="defer.I001",
        )
        for alias in connections
        if not router.allow_migrate_model(alias, DeferredTask)
    ]


@register(Tags.database)
def check_tables(app_configs: Apps, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Name the aliases without the table (`check --database`)."""
    if sys.argv[1:2] == ["migrate"]:  # which runs these checks before it makes the table
        return []
    return [
        Warning(
            f"The database {alias!r} has no table {TABLE}.",
            hint=f"Run `manage.py migrate --database {alias}`.",
            id="defer.W006",
        )
        for alias in databases or ()
        if router.allow_migrate_model(alias, DeferredTask) and not task_store(alias=alias).has_table()
    ]


def _unconfigured(config: Config) -> CheckMessage:
    """Warn with the remedies of the error that every `defer` raises."""
    try:
        _ = config.the_transport
    except ConfigError as error:
        hint = str(error).partition("\n")[2]
    return Warning("defer is not configured: tasks go nowhere.", hint=hint, id="defer.W001")


def _unknown(key: Any) -> CheckMessage:
    known = conf.FIELDS | conf.OTHER_KEYS
    close = nearest(str(key).upper(), set(known)).removeprefix("; did")
    hint = f"Did{close}" if close else f"The keys are {', '.join(sorted(known))}."
    return Error(f"DEFER has no key {key!r}.", hint=hint, id="defer.E002")


def _make(config: Config) -> None:
    """Make the transport, the stores and the authenticators. Raises ConfigError, for a missing extra too.

    The handler is not a dependency of this package.
    """
    _ = config.the_transport, config.stores
    require_extras(config.transport, config.store, *config.joins)
    if config.authenticators and find_spec("defer_gae_handler"):
        import_module("defer_gae_handler.authenticators").configured_authenticators(config)


def _authenticators(config: Config, *, deploy: bool) -> Iterator[CheckMessage]:
    authenticators = config.authenticators
    if authenticators is None:
        if on_google_cloud() or _default_authenticator(config):
            return
        if not deploy and config.transport in (None, "immediate", "memory"):
            return
    if authenticators:
        return
    hint = (
        'Say who may post tasks: DEFER = {"AUTHENTICATORS": ["appengine"]}, or "oidc", "cloud-run-iam", "local", '
        "or your own."
    )
    text = "No authenticator is configured: every request to the handler is answered with 403."
    yield Error(text, hint=hint, id="defer.E004") if deploy else Warning(text, hint=hint, id="defer.W002")


def _default_authenticator(config: Config) -> str | None:
    """Return the transport's own authenticator; None if it has none or cannot be made (see `check_settings`)."""
    try:
        return config.the_transport.default_authenticator
    except ConfigError:
        return None


def _sweep(config: Config) -> Iterator[CheckMessage]:
    if not config.sweep_interval and config.transport not in ("immediate", "memory"):
        yield Warning(
            "The automatic sweep is off (SWEEP_INTERVAL is 0): tasks that a crash leaves behind wait for a cron job.",
            hint="Run `manage.py defer_sweep` every minute and silence this check, or leave SWEEP_INTERVAL out.",
            id="defer.W003",
        )


def _url(config: Config) -> Iterator[CheckMessage]:
    if config.url is not conf.handler_url or config.transport in ("immediate", "memory"):
        return
    if conf.named_url() is None:
        yield Warning(
            f"No URL is named {conf.HANDLER!r}: tasks are posted to {conf.handler_url()}, where there may be no view.",
            hint='Add path("_ah/queue/", include("defer_gae_handler.django.urls")) to your URLs, or set DEFER["URL"].',
            id="defer.W004",
        )


def _redirect(config: Config) -> Iterator[CheckMessage]:
    """Warn of redirects: queues post paths over HTTP, and a redirect counts as a failure."""
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
    """Warn only: tasks do not need the declarations, and Djangae ignores unknown keys."""
    try:
        declared_queues(config)
    except ConfigError as error:
        hint = "Until this is fixed, `manage.py defer_queues` refuses DEFER['QUEUES'] or CLOUD_TASKS_QUEUES."
        yield Warning(str(error), hint=hint, id="defer.W007")
