"""The configuration of this process: `current()` returns it, and `configure()` sets it."""

from __future__ import annotations

from .active import (
    add_layer,
    as_configured,
    configure,
    configured,
    current,
    forget,
    from_environment,
    located,
    nearest,
    remove_layer,
    reset,
    set_source,
)
from .model import Config

__all__ = [
    "Config",
    "add_layer",
    "as_configured",
    "configure",
    "configured",
    "current",
    "forget",
    "from_environment",
    "located",
    "nearest",
    "remove_layer",
    "reset",
    "set_source",
]
