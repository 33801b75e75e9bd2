"""Frozen dataclasses that every task passes through, and that must be cheap to make.

The `__init__` of a frozen dataclass sets its fields one by one through `object.__setattr__`: for the nouns of one
request that is a third of the handler's own time (`hatch run bench handler`).
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, TypeVar

T = TypeVar("T")
_set = object.__setattr__


def fast_init(cls: type[T]) -> type[T]:
    """Give a frozen dataclass an `__init__` that writes all fields at once. It takes the same arguments, and checks
    their names as any function does. (Its fields are all keyword-only, or none is.)"""
    scope: dict[str, Any] = {"_set": _set, "_MISSING": MISSING}
    parameters, values = [], []
    for each in fields(cls):  # type: ignore[arg-type]
        name, value = each.name, each.name
        if each.default_factory is not MISSING:
            scope[f"_{name}"], default = each.default_factory, "_MISSING"
            value = f"_{name}() if {name} is _MISSING else {name}"
        elif each.default is not MISSING:
            scope[f"_{name}"], default = each.default, f"_{name}"
        else:
            default = ""
        parameters.append(f"{name}={default}" if default else name)
        values.append(f"{name!r}: {value}")
    star = ["*"] if fields(cls)[0].kw_only else []  # type: ignore[arg-type]
    signature = ", ".join(["self", *star, *parameters])
    body = [f"_set(self, '__dict__', {{{', '.join(values)}}})"]
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    exec(f"def __init__({signature}):\n    " + "\n    ".join(body), scope)
    scope["__init__"].__annotations__ = cls.__init__.__annotations__
    setattr(cls, "__init__", scope["__init__"])  # noqa: B010 (which type checkers refuse, of a method)
    return cls


def changed(noun: T, /, **changes: Any) -> T:
    """Return `dataclasses.replace(noun, **changes)`, for a noun with `fast_init`. Raises TypeError for what is no
    field."""
    before = noun.__dict__
    if not before.keys() >= changes.keys():
        raise TypeError(f"{type(noun).__name__} has no field {min(changes.keys() - before.keys())!r}.")
    other: T = object.__new__(type(noun))
    _set(other, "__dict__", {**before, **changes})
    return other
