"""The authenticators that a configuration names."""

from __future__ import annotations

from defer_core.errors import ConfigError
from defer_core.spi import Config, app_engine_environment, build_adapter, nearest, on_app_engine

from .base import Authenticator

AUTHENTICATORS = {
    "appengine": "defer_gae_handler.authenticators.appengine:AppEngineHeaders",
    "cloud-run-iam": "defer_gae_handler.authenticators.cloud_run:CloudRunToken",
    "local": "defer_gae_handler.authenticators.local:LocalSecret",
    "loopback": "defer_gae_handler.authenticators.loopback:LoopbackAddress",
    "oidc": "defer_gae_handler.authenticators.oidc:OidcToken",
}

NO_AUTHENTICATOR = """No authenticator is configured, so every task is refused.
Set `authenticators`, DEFER_AUTHENTICATORS or DEFER["AUTHENTICATORS"] to one of:
  appengine      App Engine's queues (by itself where GAE_ENV is set)
  oidc           a Google OIDC token; authenticator_options={"oidc": {"audience": ..., "email": ...}}
  cloud-run-iam  a Cloud Run service that requires authentication; tasks must be signed (`keys`)
  local          the local queue (by itself with transport="local")
  loopback       in development: this machine; tasks must be signed (`keys`)
  module:Class   your own, a subclass of defer_gae_handler.Authenticator"""

_last: tuple[Config, str, tuple[Authenticator, ...]] | None = None


def configured_authenticators(config: Config) -> tuple[Authenticator, ...]:
    """Return the authenticators, made once for each configuration; perhaps none. Raises ConfigError."""
    global _last
    platform = app_engine_environment()
    if _last is None or _last[0] is not config or _last[1] != platform:
        specs = _specs(config)
        _check_options(config, specs)
        _last = (config, platform, tuple(_made(spec, config) for spec in specs))
    return _last[2]


def _check_options(config: Config, specs: list[str | Authenticator]) -> None:
    """Raise ConfigError for the options of an unknown authenticator."""
    known = {*AUTHENTICATORS, *(spec for spec in specs if isinstance(spec, str))}
    for name in config.authenticator_options:
        if name not in known:
            raise ConfigError(
                f"authenticator_options has {name!r}, and there is no such authenticator{nearest(name, known)}."
            )


def required_authenticators(config: Config) -> tuple[Authenticator, ...]:
    """Return the authenticators. Raises ConfigError if there are none."""
    authenticators = configured_authenticators(config)
    if not authenticators:
        raise ConfigError(NO_AUTHENTICATOR)
    return authenticators


def _specs(config: Config) -> list[str | Authenticator]:
    """Return what is configured, else the transport's own, and App Engine's on App Engine."""
    if config.authenticators is not None:
        return list(config.authenticators)
    specs: list[str | Authenticator] = []
    if config.transport is not None and config.the_transport.default_authenticator:
        specs.append(config.the_transport.default_authenticator)
    if on_app_engine() and "appengine" not in specs:
        specs.append("appengine")
    return specs


def _made(spec: str | Authenticator, config: Config) -> Authenticator:
    options = config.authenticator_options.get(spec, {}) if isinstance(spec, str) else {}
    authenticator: Authenticator = build_adapter(spec, AUTHENTICATORS, options, Authenticator)
    if authenticator.require_signature and not config.keys:
        raise ConfigError(
            f"The authenticator {authenticator.name!r} accepts signed tasks only: set `keys`, which verify them."
        )
    return authenticator
