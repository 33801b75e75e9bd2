"""Frozen nouns without the price of a dataclass's own `__init__`, which sets one attribute at a time:
for the paths that every task takes."""

from __future__ import annotations

from typing import Any, TypeVar

T = TypeVar("T")


def made(cls: type[T], /, **fields: Any) -> T:
    """`cls(**fields)`, unchecked. What is left out must have a plain default, for nothing is called."""
    noun = object.__new__(cls)
    noun.__dict__.update(fields)
    return noun


def changed(noun: T, /, **fields: Any) -> T:
    """`dataclasses.replace(noun, **fields)`, unchecked."""
    other = object.__new__(type(noun))
    other.__dict__.update(noun.__dict__)
    other.__dict__.update(fields)
    return other
