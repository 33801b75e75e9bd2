"""The types that packages and users let travel, over those that the codec knows by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from .errors import UnknownTypeError
from .exttypes import NATIVE

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RegisteredType:
    """How values of one class travel."""

    cls: type
    """The class; exactly this one, unless `subclasses`."""
    name: str
    """What the wire calls it; never to be changed."""
    encode: Callable[[Any], Any]
    """From a value to values that can travel; or NotImplemented, to leave this value to pickle."""
    decode: Callable[[Any], Any]
    """And back."""
    subclasses: bool = False
    """Whether subclasses travel in the same way."""


_by_class: dict[type, RegisteredType] = {}
_by_name: dict[str, RegisteredType] = {}
_found: dict[type, RegisteredType | None] = {}
_CACHE = 1024


def register_type(
    cls: type[T], name: str, encode: Callable[[T], Any], decode: Callable[[Any], T], *, subclasses: bool = False
) -> None:
    """Let values of `cls` travel as what `encode` makes of them, under `name`, which must never change.

    `encode` returns anything that can itself travel and leaves the value as it is; `decode` makes the value of it
    again. An `encode` that returns NotImplemented leaves this one value to pickle, if that is allowed.
    A `decode` that finds something missing raises NotYetReadableError, so that the task is tried again for the grace;
    what else it raises counts the same. With `subclasses`, a subclass travels so too, unless it is registered itself.

    Raises TypeError for what is no class, name or function; ValueError for a name taken by another class, and for a
    class that the codec has a form of its own for.
    """
    if not (isinstance(cls, type) and isinstance(name, str) and name and callable(encode) and callable(decode)):
        raise TypeError(f"register_type takes a class, a name and two functions: {(cls, name, encode, decode)!r}.")
    if cls in NATIVE:
        raise ValueError(f"{cls!r} cannot be registered: it has a form of its own, and nothing would call `encode`.")
    known = _by_name.get(name)
    if known is not None and known.cls is not cls:
        raise ValueError(f"The type name {name!r} is taken by {known.cls!r}.")
    _by_class[cls] = _by_name[name] = RegisteredType(
        cls=cls, name=name, encode=encode, decode=decode, subclasses=subclasses
    )
    _found.clear()


def registered(kind: type) -> RegisteredType | None:
    """How values of exactly this class travel; None where nobody has said."""
    try:
        return _found[kind]
    except KeyError:
        pass
    if len(_found) >= _CACHE:  # classes made on the fly would otherwise be kept for ever
        _found.clear()
    _found[kind] = found = _search(kind)
    return found


def _search(kind: type) -> RegisteredType | None:
    exact = _by_class.get(kind)
    if exact is not None:
        return exact
    return next((each for base in kind.__mro__ if (each := _by_class.get(base)) and each.subclasses), None)


def named(name: Any) -> RegisteredType:
    """The type that the wire calls so. Raises UnknownTypeError."""
    found = _by_name.get(name) if isinstance(name, str) else None
    if found is None:
        raise UnknownTypeError(f"The task holds a value of the type {name!r}, which is not registered here.")
    return found
