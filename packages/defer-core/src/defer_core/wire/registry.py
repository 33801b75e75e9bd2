"""The types that packages and users register, besides those that the encoder has a form for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import UnknownTypeError
from ..text import one_line
from .types import NATIVE

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RegisteredType:
    """How values of one class travel."""

    cls: type
    """The class; exactly this one, unless `subclasses`."""
    name: str
    """Its name on the wire; it must never change."""
    encode: Callable[[Any], Any]
    """Takes a value, returns values that can travel; or NotImplemented, to leave this value to pickle."""
    decode: Callable[[Any], Any]
    """Takes what `encode` returned, returns the value."""
    subclasses: bool = False
    """True if subclasses travel in the same way."""
    reduce: Callable[[Any], tuple[Any, ...]] | None = None
    """Takes a value that something in it refers to, returns what its `__reduce__` would give pickle."""


_by_class: dict[type, RegisteredType] = {}
_by_name: dict[str, RegisteredType] = {}
_found: dict[type, RegisteredType | None] = {}
_CACHE = 1024


def register_type(
    cls: type[T],
    name: str,
    encode: Callable[[T], Any],
    decode: Callable[[Any], T],
    *,
    subclasses: bool = False,
    reduce: Callable[[T], tuple[Any, ...]] | None = None,
) -> None:
    """Let values of `cls` travel as what `encode` makes of them, under `name`, which must never change.

    `encode` returns anything that can itself travel, and does not change the value; `decode` makes the value again. An
    `encode` that returns NotImplemented leaves this one value to pickle, if that is allowed. A `decode` that finds
    something missing raises NotYetReadableError, so that the task is retried for the grace; any other exception has the
    same effect. With `subclasses`, a subclass travels so too, unless it is registered itself. A value that its own
    attributes refer to is left to pickle, as what `reduce` makes of it (like a `__reduce__`); without `reduce` it is
    refused.

    Raises TypeError for an argument that is no class, name or function; ValueError for a name taken by another class,
    and for a class that the encoder has a form of its own for.
    """
    if not (isinstance(cls, type) and isinstance(name, str) and name and callable(encode) and callable(decode)):
        raise TypeError(f"register_type takes a class, a name and two functions: {(cls, name, encode, decode)!r}.")
    if cls in NATIVE:
        raise ValueError(f"{cls!r} cannot be registered: it has a built-in form, and `encode` would never be called.")
    known = _by_name.get(name)
    if known is not None and known.cls is not cls:
        raise ValueError(f"The type name {name!r} is taken by {known.cls!r}.")
    _by_class[cls] = _by_name[name] = RegisteredType(
        cls=cls, name=name, encode=encode, decode=decode, subclasses=subclasses, reduce=reduce
    )
    _found.clear()


def registered(kind: type) -> RegisteredType | None:
    """Return how values of exactly this class travel, else None."""
    try:
        return _found[kind]
    except KeyError:
        pass
    if len(_found) >= _CACHE:  # else classes made on the fly would be kept for ever
        _found.clear()
    _found[kind] = found = _search(kind)
    return found


def _search(kind: type) -> RegisteredType | None:
    exact = _by_class.get(kind)
    if exact is not None:
        return exact
    return next((each for base in kind.__mro__ if (each := _by_class.get(base)) and each.subclasses), None)


def named(name: Any) -> RegisteredType:
    """Return the type that the wire calls `name`. Raises UnknownTypeError."""
    found = _by_name.get(name) if isinstance(name, str) else None
    if found is None:
        shown = one_line(repr(name))
        raise UnknownTypeError(f"The task has a value of the type {shown}, which is not registered here.")
    return found
