"""The path to the value that cannot travel: `kwargs['user'].avatar`. Only failing calls come here, so it may be
slow."""

from __future__ import annotations

import functools
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from datetime import datetime, time
from typing import Any

from ..errors import CallableForbiddenError, DeferError, UnreadableError, UnserializableError
from .registry import registered

MAX_DEPTH = 500
_SHORT = 60
_WITHOUT_STATE = frozenset(
    (list, tuple, dict, set, frozenset, functools.partial, types.MethodType, types.BuiltinMethodType, datetime, time)
)

Step = tuple[str, Any]
"""What to add to a path, and the value there."""


def explain(error: Exception, steps: Iterable[Step], attempt: Callable[[Any], object]) -> DeferError:
    """Return the error to raise for `error`, with the path from one of `steps` to the innermost value that `attempt`
    refuses."""
    path, value, reason = _descend(error, list(steps), attempt)
    where = path or "the value"
    if isinstance(reason, CallableForbiddenError):
        return CallableForbiddenError(f"{where}: {reason}", name=reason.name, path=path)
    if isinstance(reason, UnserializableError) and reason.path:
        return reason
    text = f"{where}: a {_type_name(value)} cannot travel in a task: {reason}"
    return UnserializableError(text, path=path)


def _descend(error: Exception, steps: list[Step], attempt: Callable[[Any], object]) -> tuple[str, Any, Exception | str]:
    path, value, above = "", None, list[Step]()
    while found := _first_failing(steps, attempt):
        step, inner, error = found
        path, value = path + step, inner
        before = next((way for way, each in above if each is inner), None)
        if before is not None:
            alone = isinstance(error, UnreadableError)  # though pickle takes what contains itself
            return _brief(before if alone else path), value, error if alone else "it contains itself."
        if len(above) >= MAX_DEPTH:
            return _brief(path), value, f"it is nested more than {MAX_DEPTH} levels deep."
        above.append((path, inner))
        steps = _steps(inner)
    return _brief(path), value, error


def _steps(value: Any) -> list[Step]:
    try:
        return list(_inside(value))
    except Exception:
        return []


def _first_failing(steps: list[Step], attempt: Callable[[Any], object]) -> tuple[str, Any, Exception] | None:
    for step, value in steps:
        try:
            attempt(value)
        except Exception as error:
            return step, value, error
    return None


def _brief(path: str) -> str:
    return path if len(path) <= 4 * _SHORT else f"{path[: 2 * _SHORT]}…"


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _inside(value: Any) -> Iterator[Step]:
    """Yield the values inside one, and how each is reached. Raises what a class of the user's raises when it is
    inspected."""
    kind = type(value)
    if isinstance(value, list | tuple | deque):
        names = getattr(kind, "_fields", ())  # of a named tuple
        yield from ((f".{names[at]}" if at < len(names) else f"[{at}]", each) for at, each in enumerate(value))
    elif isinstance(value, dict):
        yield from ((f" (the key {_text(key)})", key) for key in value)
        yield from ((f"[{_text(key)}]", each) for key, each in value.items())
        yield (".default_factory", getattr(value, "default_factory", None))
    elif isinstance(value, set | frozenset):
        yield from ((f" (the member {_text(each)})", each) for each in value)
    elif kind is functools.partial:
        yield from ((".args", list(value.args)), (".keywords", dict(value.keywords)), (".func", value.func))
    elif kind is types.MethodType or kind is types.BuiltinMethodType:
        if not isinstance(value.__self__, types.ModuleType | type):
            yield (".__self__", value.__self__)
    elif kind is datetime or kind is time:
        yield (".tzinfo", value.tzinfo)
    if kind not in _WITHOUT_STATE:
        yield from _state(value)


def _state(value: Any) -> Iterator[Step]:
    """Yield what a registered type makes of a value, or what pickle collects of it."""
    if isinstance(value, BaseException):
        yield (".args", value.args)
    if is_dataclass(type(value)):
        yield from ((f".{each.name}", getattr(value, each.name, None)) for each in fields(value))
    try:
        how = registered(type(value))
        state = how.encode(value) if how else value.__reduce_ex__(4)[2]
    except Exception:
        return
    yield from _attributes(state)


def _attributes(state: Any) -> Iterator[Step]:
    if isinstance(state, dict):
        yield from ((f".{key}" if isinstance(key, str) else f"[{_text(key)}]", each) for key, each in state.items())
    elif isinstance(state, list | tuple):
        for each in state:
            yield from _attributes(each) if isinstance(each, dict | list | tuple) else (("", each),)


def _text(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"<{_type_name(value)}>"
    return text if len(text) <= _SHORT else text[:_SHORT] + "…"
