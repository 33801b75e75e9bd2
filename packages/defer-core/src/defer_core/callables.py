"""How a callable travels: as `module:qualname`, checked at `defer()` to lead back to the same object.

A Ref is that string, or a list for what has no name of its own: `["method", instance, name]`,
`["partial", ref, args, kwargs]` and `["instance", object]`. The codec takes care of the values in it.
"""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable
from importlib import import_module
from typing import Any

from .config import Config
from .errors import CallableError, CallableNotFoundError, DecodeError

Ref = str | list[Any]
_BY_NAME = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    functools.partial,
    type,
)

_MAKES_SOMETHING = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def check_runs(func: Any) -> None:
    """Raises CallableError for a function whose call does not run it: a coroutine function or a generator function."""
    inner = func
    while isinstance(inner, functools.partial):
        inner = inner.func
    code = getattr(inner, "__code__", None)
    flags = code.co_flags if isinstance(code, types.CodeType) else 0
    if flags & _MAKES_SOMETHING:
        kind = "generator" if flags & inspect.CO_GENERATOR else "coroutine"
        raise CallableError(f"{func!r} cannot be deferred: a call of it makes a {kind}, and runs nothing.")


def to_ref(func: Callable[..., Any], config: Config) -> Ref:
    """The Ref of a callable. Raises CallableError (saying why) or CallableForbiddenError."""
    if isinstance(func, functools.partial):
        return ["partial", to_ref(func.func, config), list(func.args), dict(func.keywords)]
    name = name_of(func)
    if name is not None:
        config.policy.check(name)
        if leads_to(name, func):
            return name
    return _ref_of_instance(func, name, config)


def name_of(func: Any) -> str | None:
    """The `module:qualname` by which a callable might be found, or None."""
    if type(func) is types.FunctionType:  # by far the most
        return f"{func.__module__}:{func.__qualname__}"
    target = getattr(func, "func", func) if not callable(func) and hasattr(func, "call") else func  # a Django task
    owner = getattr(target, "__self__", None)
    name = getattr(target, "__name__", None)
    if isinstance(owner, type) and name:  # a classmethod: by the class it was taken from, not the one that defines it
        return f"{owner.__module__}:{owner.__qualname__}.{name}"
    holder = getattr(target, "__objclass__", None)  # str.upper
    module = getattr(holder, "__module__", None) or getattr(target, "__module__", None)
    if isinstance(owner, types.ModuleType):
        module = owner.__name__
    qualname = getattr(target, "__qualname__", None)
    return f"{module}:{qualname}" if isinstance(module, str) and isinstance(qualname, str) else None


def leads_to(name: str, func: Any) -> bool:
    """Whether `module:qualname` resolves to this very object."""
    try:
        return bool(resolve(name) == func)
    except CallableNotFoundError:
        return False


def _ref_of_instance(func: Any, name: str | None, config: Config) -> Ref:
    owner = getattr(func, "__self__", None)
    method = getattr(func, "__name__", None)
    if owner is not None and method and not isinstance(owner, types.ModuleType | type):
        kind = type(owner)
        config.policy.check(f"{kind.__module__}:{kind.__qualname__}.{method}")
        if getattr(owner, method, None) == func:
            return ["method", owner, method]
        raise CallableError(f"{func!r} cannot be deferred: its instance has no method {method!r} that is this one.")
    if not callable(func):
        raise CallableError(f"{func!r} cannot be deferred: it is not callable.")
    if not isinstance(func, types.FunctionType | types.BuiltinFunctionType | type):
        kind = type(func)
        config.policy.check(f"{kind.__module__}:{kind.__qualname__}")
        return ["instance", func]
    raise CallableError(f"{func!r} cannot be deferred: {_why_not(func, name)}")


def _why_not(func: Any, name: str | None) -> str:
    qualname = getattr(func, "__qualname__", "")
    if "<lambda>" in qualname:
        return "it is a lambda, which has no name to find it by. Define a function in a module."
    if "<locals>" in qualname:
        return "it is defined inside a function, where nobody else can find it. Move it to the top of its module."
    return f"{name} does not lead back to it (is it replaced by a decorator, or not at the top of its module?)."


def from_ref(ref: Any, config: Config) -> Callable[..., Any]:
    """The callable of a Ref. Raises CallableNotFoundError, CallableForbiddenError or DecodeError."""
    if isinstance(ref, str):
        config.policy.check(ref)
        found = resolve(ref)
        found = found if callable(found) else getattr(found, "call", None)
        if not callable(found):
            raise DecodeError(f"{ref} is not callable.")
        return found  # type: ignore[no-any-return]
    match ref:
        case ["method", owner, str() as name]:
            config.policy.check(f"{type(owner).__module__}:{type(owner).__qualname__}.{name}")
            try:
                method = getattr(owner, name)
            except AttributeError as error:
                raise CallableNotFoundError(f"{type(owner).__qualname__} has no method {name!r}.") from error
            return _called(method, name)
        case ["partial", inner, list() as args, dict() as kwargs]:
            return functools.partial(from_ref(inner, config), *args, **kwargs)
        case ["instance", func]:
            config.policy.check(f"{type(func).__module__}:{type(func).__qualname__}")
            return _called(func, type(func).__qualname__)
    raise DecodeError("The task does not say what to call.")


def _called(found: Any, name: str) -> Callable[..., Any]:
    if not callable(found):
        raise DecodeError(f"{name} is not callable.")
    return found  # type: ignore[no-any-return]


def resolve(name: str) -> Any:
    """The object that `module:qualname` names. Raises CallableNotFoundError."""
    module_name, colon, qualname = name.partition(":")
    if not (module_name and colon and qualname):
        raise CallableNotFoundError(f"{name!r} is not of the form 'module:qualname'.")
    try:
        found: Any = sys.modules.get(module_name) or import_module(module_name)
        for part in qualname.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise CallableNotFoundError(f"{name} cannot be found: {error}") from error
    return found


def travels_by_name(obj: Any) -> bool:
    """Whether a value among the arguments is a callable that travels as a Ref, and not as what it holds."""
    return isinstance(obj, _BY_NAME)


def label(func: Any) -> str:
    """What to call a callable in a list for people."""
    inner = func
    while isinstance(inner, functools.partial):
        inner = inner.func
    return name_of(inner) or f"{type(inner).__module__}:{type(inner).__qualname__}"
