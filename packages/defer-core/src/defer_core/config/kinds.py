"""Kinds of settings: their values, and their texts in environment variables."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any

from ..errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of setting."""

    types: Any
    """The types that `isinstance` accepts."""
    value: str
    """What to give instead of a wrong value."""
    text: str
    """What to give instead of a wrong text."""
    parse: Callable[[str], Any]
    """Return the value of a text. Raises KeyError, ValueError, TypeError or OSError."""


def _list(text: str) -> tuple[Any, ...]:
    if text.lstrip().startswith("["):
        return tuple(json.loads(text))
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _zone(text: str) -> tzinfo:
    import zoneinfo

    return zoneinfo.ZoneInfo(text)


_WORDS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
FLAG = Kind(types=bool, value="True or False", text="true or false", parse=lambda text: _WORDS[text.lower()])
WHOLE = Kind(types=int, value="a whole number", text="a whole number", parse=int)
NUMBER = Kind(types=int | float, value="a number", text="a number", parse=float)
MAPPING = Kind(types=Mapping, value="a dict", text="a JSON object", parse=lambda text: dict(json.loads(text)))
LIST = Kind(types=Collection, value="a list", text="a JSON list, or values separated by commas", parse=_list)
ZONE = Kind(
    types=tzinfo | Callable,
    value="a tzinfo, or a function that returns one",
    text="the name of a time zone",
    parse=_zone,
)


def setting(kind: Kind, default: Any, *, optional: bool = False, hidden: bool = False, value: str = "") -> Any:
    """Return the dataclass field of a setting. `optional`: None is valid, too; `hidden`: no repr shows it; `value`:
    what to give instead of a wrong one, in more words than the kind has."""
    metadata = {"kind": kind, "optional": optional, "value": value or kind.value}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), repr=not hidden, metadata=metadata)
    return field(default=default, repr=not hidden, metadata=metadata)


def check(setting: dataclasses.Field[Any], value: Any) -> None:
    """Raise ConfigError for a value of another kind; it is not shown, since it may be a secret."""
    kind: Kind | None = setting.metadata.get("kind")
    if kind is None or (value is None and setting.metadata["optional"]):
        return
    wrong = isinstance(value, str | bytes) or (isinstance(value, bool) and kind is not FLAG)
    if wrong or not isinstance(value, kind.types):
        raise ConfigError(f"{setting.name} is a {type(value).__name__}: give {setting.metadata['value']}.")
    if kind in (WHOLE, NUMBER) and not value >= 0:
        raise ConfigError(f"{setting.name} is {value}: give {kind.value} that is not negative.")


def parse(setting: dataclasses.Field[Any], variable: str, text: str) -> Any:
    """Return the value of an environment variable. Raises ConfigError naming it."""
    kind: Kind | None = setting.metadata.get("kind")
    if kind is None:
        return text
    try:
        return kind.parse(text)
    except (KeyError, ValueError, TypeError, OSError) as error:
        if kind is MAPPING:
            text = re.sub(r'[^{}\[\]":,\s]+', "…", text)  # its form alone, since there are secrets in options
        shown = "has a mistake" if not setting.repr and kind is not MAPPING else f"is {text!r}"
        raise ConfigError(f"The environment variable {variable} {shown}: give {kind.text}.") from error
