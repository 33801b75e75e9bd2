"""What this process has been told: `configure(...)`, a framework's settings, or `DEFER_*` environment variables."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .errors import ConfigError
from .settings import STORES, TRANSPORTS, UNCONFIGURED, Config, build, on_google_cloud, refuse_on_google_cloud

__all__ = [
    "STORES",
    "TRANSPORTS",
    "UNCONFIGURED",
    "Config",
    "build",
    "configure",
    "configured",
    "current",
    "forget",
    "from_environment",
    "nearest",
    "on_google_cloud",
    "refuse_on_google_cloud",
    "reset",
    "set_source",
]

_explicit: Config | None = None
_cached: Config | None = None
_source: Callable[[], Config | None] | None = None


def configure(**settings: Any) -> Config:
    """Configure this process; replaces what was configured before. Takes the fields of Config. Raises ConfigError."""
    global _explicit
    known = {each.name for each in dataclasses.fields(Config)}
    for name in settings:
        if name not in known:
            raise ConfigError(f"There is no setting {name!r}{nearest(name, known)}.")
    _explicit = Config(**settings)
    return _explicit


def nearest(name: str, known: set[str]) -> str:
    """`; did you mean 'x'?`, or nothing."""
    import difflib

    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def set_source(source: Callable[[], Config | None] | None) -> None:
    """Let a framework's settings be the configuration wherever `configure` was not called."""
    global _source
    _source = source
    forget()


def forget() -> None:
    """Read settings and environment again when next asked."""
    global _cached
    _cached = None


def reset() -> None:
    """Forget what `configure` was told, too."""
    global _explicit
    _explicit = None
    forget()


def current() -> Config:
    """The configuration; a bare one (which can run inline tasks, and send nothing) where nothing was configured."""
    global _cached
    if _explicit is not None:
        return _explicit
    if _cached is None:
        _cached = (_source() if _source else None) or from_environment(os.environ)
    return _cached


@contextmanager
def configured(**settings: Any) -> Iterator[Config]:
    """`configure` for the length of a `with` block (tests)."""
    global _explicit
    previous = _explicit
    try:
        yield configure(**settings)
    finally:
        _explicit = previous


def from_environment(environ: Mapping[str, str]) -> Config:
    """The configuration that `DEFER_*` variables give. Raises ConfigError naming the variable."""
    settings: dict[str, Any] = {}
    for each in dataclasses.fields(Config):
        variable = f"DEFER_{each.name.upper()}"
        if variable in environ:
            settings[each.name] = _parse(variable, environ[variable], str(each.type))
    return Config(**settings)


_EXPECTED = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "Mapping": "a JSON object",
    "Sequence": "a JSON list, or values separated by commas",
    "tzinfo": "the name of a time zone",
}
"""What a variable may be, by the first word of its setting's annotation."""


def _parse(variable: str, text: str, kind: str) -> Any:
    """Mappings are JSON; lists are, too, or separated by commas."""
    try:
        if kind == "bool":
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
        if kind == "int":
            return int(text)
        if kind.startswith("float"):
            return float(text)
        if kind.startswith("Mapping"):
            return dict(json.loads(text))
        if kind.startswith("Sequence"):
            if text.lstrip().startswith("["):
                return tuple(json.loads(text))
            return tuple(part.strip() for part in text.split(",") if part.strip())
        if kind.startswith("tzinfo"):
            import zoneinfo

            return zoneinfo.ZoneInfo(text)
    except (KeyError, ValueError, TypeError, OSError) as error:
        shown = "has a mistake" if variable == "DEFER_KEYS" else f"is {text!r}"
        expected = next(say for word, say in _EXPECTED.items() if kind.startswith(word))
        raise ConfigError(f"The environment variable {variable} {shown}: give {expected}.") from error
    return text
