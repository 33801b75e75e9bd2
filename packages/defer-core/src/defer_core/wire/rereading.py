"""Which pickles `defer()` must read again to know that they can be read: for most classes, one pickle proves it for
all."""

from __future__ import annotations

import copyreg
import sys
from collections.abc import Iterable
from types import FunctionType
from typing import Any

_CACHE = 4096
_HOOKS = (
    "__new__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__",
    "__getattr__", "__getattribute__", "__setitem__", "append", "extend",
)  # fmt: skip
"""Methods by which a class takes part in how its instances are made again. If a project's own class has one of them,
the outcome may depend on the instance."""
_OF_KEYS = ("__hash__", "__setattr__")
"""Further such methods, which a frozen dataclass has from `dataclasses`."""

_proven: set[type] = set()


def is_needed(kinds: Iterable[type]) -> bool:
    """Return True if a pickle with instances of these classes must be read again."""
    return not _proven.issuperset(kinds)


def succeeded(kinds: Iterable[type]) -> None:
    """Remember the classes of a pickle that could be read again."""
    if len(_proven) >= _CACHE:  # else classes made on the fly would be kept for ever
        _proven.clear()
    _proven.update(filter(_proves_all, kinds))


def _proves_all(kind: type) -> bool:
    """Return True if one readable pickle proves it for every instance. Never for exceptions: `args` that `__init__`
    takes from one may not fit the next."""
    if issubclass(kind, BaseException):
        return False
    if _is_standard(kind.__module__):
        return True
    if kind in copyreg.dispatch_table or _is_own(getattr(type(kind), "__call__", None)):  # noqa: B004 (its own is wanted)
        return False
    params = getattr(kind, "__dataclass_params__", None)
    names = _HOOKS if params is not None and params.frozen else (*_HOOKS, *_OF_KEYS)
    if kind.__reduce__ is not object.__reduce__:  # it is made again by a call
        names = (*names, "__init__")
    return not any(_is_own(getattr(kind, name, None)) for name in names)


def _is_own(method: Any) -> bool:
    """Return True if a method is written in Python, outside the standard library."""
    return isinstance(method, FunctionType) and not _is_standard(method.__module__)


def _is_standard(module: str | None) -> bool:
    return (module or "").partition(".")[0] in sys.stdlib_module_names
