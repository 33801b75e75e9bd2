"""Frozen nouns without the price of a dataclass's own `__init__`, which sets one attribute at a time:
for the paths that every task takes."""

from __future__ import annotations

from typing import Any, TypeVar

T = TypeVar("T")
_new, _set = object.__new__, object.__setattr__


def made(cls: type[T], /, **fields: Any) -> T:
    """`cls(**fields)`, unchecked. What is left out must have a plain default, for nothing is called."""
    noun = _new(cls)
    _set(noun, "__dict__", fields)
    return noun


def changed(noun: T, /, **fields: Any) -> T:
    """`dataclasses.replace(noun, **fields)`, unchecked."""
    other = _new(type(noun))
    _set(other, "__dict__", {**noun.__dict__, **fields})
    return other
