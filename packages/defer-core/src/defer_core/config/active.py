"""The active configuration: from `configure(...)`, a framework's settings, or `DEFER_*` environment variables."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..extras import require_named
from . import kinds
from .model import Config

_explicit: Config | None = None
_cached: Config | None = None
_source: Callable[[], Config | None] | None = None
_folder: Callable[[], str | Path] = os.getcwd
_layers: list[Callable[[Config], Config | None]] = []


def configure(**settings: Any) -> Config:
    """Configure this process, replacing an earlier configuration. Takes the fields of Config. Raises ConfigError."""
    global _explicit
    known = {each.name for each in dataclasses.fields(Config)}
    for name in settings:
        if name not in known:
            raise ConfigError(f"There is no setting {name!r}{nearest(name, known)}.")
    given = Config(**settings)
    require_named(given.transport, given.store)
    _explicit = given
    return given


def nearest(name: str, known: set[str]) -> str:
    """Return `; did you mean 'x'?`, or an empty string."""
    import difflib

    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def set_source(source: Callable[[], Config | None] | None, folder: Callable[[], str | Path] = os.getcwd) -> None:
    """Use a framework's settings as the configuration unless `configure` is called, and `folder()` for files without a
    given path."""
    global _source, _folder
    _source, _folder = source, folder
    forget()


def located(file: str | Path | None, variable: str, default: str) -> Path:
    """Return the path of a file of this project: `file`, else what an environment variable says, else `default` in the
    folder of the project. A framework knows that folder; without one it is the current directory."""
    return Path(file or os.environ.get(variable) or Path(_folder(), default)).absolute()


def add_layer(layer: Callable[[Config], Config | None], *, first: bool = False) -> None:
    """Let `layer` replace the configuration of this process (in tests); the first one that does not return None counts.
    A layer that is there already stays where it is."""
    if layer not in _layers:
        _layers.insert(0 if first else len(_layers), layer)


def remove_layer(layer: Callable[[Config], Config | None]) -> None:
    """Remove a layer that `add_layer` has added."""
    _layers.remove(layer)


def forget() -> None:
    """Forget what was read, so that settings and environment are read again when needed."""
    global _cached
    _cached = None


def reset() -> None:
    """Forget also what `configure` was given."""
    global _explicit
    _explicit = None
    forget()


def current() -> Config:
    """Return the configuration, or the one by which a test replaces it."""
    config = as_configured()
    for layer in _layers:
        laid = layer(config)
        if laid is not None:
            return laid
    return config


def as_configured() -> Config:
    """Return the configuration; without any, a bare one, which can run inline tasks and send nothing."""
    global _cached
    if _explicit is not None:
        return _explicit
    if _cached is None:
        _cached = (_source() if _source else None) or from_environment(os.environ)
    return _cached


@contextmanager
def configured(**settings: Any) -> Iterator[Config]:
    """Configure this process in a `with` block (tests)."""
    global _explicit
    previous = _explicit
    try:
        yield configure(**settings)
    finally:
        _explicit = previous


def from_environment(environ: Mapping[str, str]) -> Config:
    """Return the configuration that `DEFER_*` variables give. Raises ConfigError naming the variable."""
    settings: dict[str, Any] = {}
    for each in dataclasses.fields(Config):
        variable = f"DEFER_{each.name.upper()}"
        if variable in environ:
            settings[each.name] = kinds.parse(each, variable, environ[variable])
    return Config(**settings)
