"""The libraries that adapters need besides msgpack, and the extras that bring them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec

from .errors import MissingExtraError

EXTRAS: Mapping[str, tuple[str, str]] = {
    "cloud-tasks": ("google.cloud.tasks_v2", "Cloud Tasks"),
    "datastore": ("google.cloud.ndb", "the store 'ndb'"),
    "appengine": ("google.appengine.api", "App Engine's bundled services"),
}
"""By extra: the package that it brings, and what needs that package."""
NEEDED = {"cloud": "cloud-tasks", "appengine": "appengine", "ndb": "datastore"}
"""The extras of transports and stores, by their names."""


def require(extra: str) -> None:
    """Raise MissingExtraError if an extra is not installed. Imports only the packages around it."""
    module, what = EXTRAS[extra]
    if module not in sys.modules and not _is_installed(module):
        raise MissingExtraError(f"{what} needs {module}: pip install 'defer-core[{extra}]'.", name=module)


def require_named(*adapters: object) -> None:
    """Raise MissingExtraError if one of these transports and stores, as named in a configuration, lacks its extra."""
    for adapter in adapters:
        if isinstance(adapter, str) and adapter in NEEDED:
            require(NEEDED[adapter])


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of what is around it
        return False
