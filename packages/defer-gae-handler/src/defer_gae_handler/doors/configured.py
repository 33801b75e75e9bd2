"""Which doors there are, by the configuration."""

from __future__ import annotations

import os

from defer_core.config import Config, build, nearest
from defer_core.errors import ConfigError

from .appengine import on_app_engine
from .base import Door

DOORS = {
    "appengine": "defer_gae_handler.doors.appengine:AppEngineDoor",
    "cloud-run-iam": "defer_gae_handler.doors.cloud_run:CloudRunIamDoor",
    "local": "defer_gae_handler.doors.local:LocalDoor",
    "loopback": "defer_gae_handler.doors.loopback:LoopbackDoor",
    "oidc": "defer_gae_handler.doors.oidc:OidcDoor",
}

NO_DOOR = """No door is configured, so nobody may post tasks. Say who may, with `doors`, DEFER_DOORS or DEFER["DOORS"]:
  appengine      App Engine's queues (by itself where GAE_ENV is set)
  oidc           a Google OIDC token; door_options={"oidc": {"audience": ..., "email": ...}}
  cloud-run-iam  a Cloud Run service that requires authentication; tasks must be signed (`keys`)
  local          the local queue (by itself with transport="local")
  loopback       in development: this machine; tasks must be signed (`keys`)
  module:Class   your own, a subclass of defer_gae_handler.Door"""

_last: tuple[Config, str | None, tuple[Door, ...]] | None = None


def configured_doors(config: Config) -> tuple[Door, ...]:
    """The doors, made once for a configuration; empty where there is none. Raises ConfigError."""
    global _last
    platform = os.environ.get("GAE_ENV")
    if _last is None or _last[0] is not config or _last[1] != platform:
        specs = _specs(config)
        _check_options(config, specs)
        _last = (config, platform, tuple(_made(spec, config) for spec in specs))
    return _last[2]


def _check_options(config: Config, specs: list[str | Door]) -> None:
    """Raises ConfigError for options of a door that is not there."""
    known = {*DOORS, *(spec for spec in specs if isinstance(spec, str))}
    for name in config.door_options:
        if name not in known:
            raise ConfigError(f"door_options has {name!r}, which is no door{nearest(name, known)}.")


def required_doors(config: Config) -> tuple[Door, ...]:
    """The doors, of which there must be one. Raises ConfigError."""
    doors = configured_doors(config)
    if not doors:
        raise ConfigError(NO_DOOR)
    return doors


def _specs(config: Config) -> list[str | Door]:
    """What is configured; else the transport's own, and App Engine's on App Engine."""
    if config.doors is not None:
        return list(config.doors)
    default = None if config.transport is None else config.the_transport.default_door
    return list(dict.fromkeys([*([default] if default else []), *(["appengine"] if on_app_engine() else [])]))


def _made(spec: str | Door, config: Config) -> Door:
    options = config.door_options.get(spec, {}) if isinstance(spec, str) else {}
    door: Door = build(spec, DOORS, options, Door)
    if door.require_signature and not config.keys:
        raise ConfigError(f"The door {door.name!r} lets only signed tasks in, and `keys` has no secret to verify them.")
    return door
