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

_BOUND = (types.MethodType, types.BuiltinMethodType, types.MethodWrapperType)
_NAMED = (
    types.FunctionType, types.BuiltinFunctionType, type, types.MethodType, types.MethodWrapperType,
    types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType,
)  # fmt: skip
_NEVER_RUNS = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def to_runnable_ref(func: Callable[..., Any], config: Config) -> Ref:
    """The Ref of what a task is to call. Raises CallableError, also for what would run nothing, or
    CallableForbiddenError."""
    if type(func) is types.FunctionType:
        known = config.policy.known.get(func)
        if known is not None and getattr(sys.modules.get(known[2]), known[3], None) is func:
            return known[0]
    _check_runs(func)
    ref = to_ref(func, config)
    if type(func) is types.FunctionType:
        _remember(func, ref, func, config)
    return ref


def _remember(key: Any, ref: Any, found: Any, config: Config) -> None:
    """What is at the top of its module is looked at only once, as long as it is still there."""
    module, _, name = ref.partition(":")
    if getattr(sys.modules.get(module), name, None) is found:
        config.policy.keep(key, (ref, found, module, name))


def to_ref(func: Callable[..., Any], config: Config) -> Ref:
    """The Ref of a callable. Raises CallableError (saying why) or CallableForbiddenError."""
    if type(func) is functools.partial:
        return _ref_of_partial(func, config)
    return _ref_of_other(func, config)


def _ref_of_partial(func: functools.partial[Any], config: Config) -> Ref:
    attributes = [name for name in func.__dict__ if name != "__self__"]  # which a partialmethod sets
    if attributes:
        raise CallableError(
            f"{func!r} cannot be deferred: it is a partial with attributes ({', '.join(attributes)}), which would not "
            "travel. Make a function of it at the top of a module."
        )
    return ["partial", to_ref(func.func, config), list(func.args), dict(func.keywords)]


def _ref_of_other(func: Any, config: Config) -> Ref:
    name = name_of(func)
    if name is not None:
        config.policy.check(name)
        if leads_to(name, func):
            return name
    owner = getattr(func, "__self__", None)
    if isinstance(func, _BOUND) and owner is not None and not isinstance(owner, types.ModuleType | type):
        return _ref_of_method(func, owner, config)
    if isinstance(func, _NAMED) or (not callable(func) and hasattr(type(func), "call")):
        raise CallableError(f"{func!r} cannot be deferred: {_why_not(func, name)}")
    if not callable(func):
        raise CallableError(f"{func!r} cannot be deferred: it is not callable.")
    config.policy.check(_class_name(func))
    return ["instance", func]


def _ref_of_method(func: Any, owner: Any, config: Config) -> Ref:
    name: str = func.__name__
    mangled = [f"_{each.__name__.lstrip('_')}{name}" for each in type(owner).__mro__] if name.startswith("__") else []
    for each in (name, *mangled):
        config.policy.check(f"{_class_name(owner)}.{each}")
        if _is_same(getattr(owner, each, None), func):
            return ["method", owner, each]
    raise CallableError(f"{func!r} cannot be deferred: its instance has no method {name!r} that is this one.")


def name_of(func: Any) -> str | None:
    """The `module:qualname` by which a callable might be found, or None."""
    target = _inner(func)
    owner = getattr(target, "__self__", None)
    name = getattr(target, "__name__", None)
    if isinstance(owner, type) and isinstance(name, str):  # a classmethod: of the class it was taken from
        return f"{owner.__module__}:{owner.__qualname__}.{name}"
    holder = getattr(target, "__objclass__", None)  # str.upper
    module = getattr(holder, "__module__", None) or getattr(target, "__module__", None)
    if isinstance(owner, types.ModuleType):
        module = owner.__name__
    if module is owner is None and isinstance(target, types.BuiltinFunctionType):
        module = "builtins"  # str.maketrans says nothing of where it is
    qualname = getattr(target, "__qualname__", None)
    return f"{module}:{qualname}" if isinstance(module, str) and isinstance(qualname, str) else None


def _inner(func: Any) -> Any:
    """The function of a Django task, which is not callable itself."""
    return getattr(func, "func", func) if not callable(func) and hasattr(func, "call") else func


def _class_name(value: Any) -> str:
    return f"{type(value).__module__}:{type(value).__qualname__}"


def leads_to(name: str, func: Any) -> bool:
    """Whether a name resolves to this very object."""
    try:
        return _is_same(resolve(name), func)
    except CallableNotFoundError:
        return False


def _is_same(found: Any, func: Any) -> bool:
    """Bound methods are made anew each time they are looked up; anything else is compared by identity."""
    return found is func or (isinstance(func, _BOUND) and type(found) is type(func) and bool(found == func))


def travels_by_name(value: Any) -> bool:
    """Whether a value among the arguments travels as a Ref: functions, classes, methods, partials, Django tasks."""
    if isinstance(value, _NAMED) or type(value) is functools.partial:
        return True
    name = name_of(value) if callable(value) or hasattr(type(value), "call") else None
    return name is not None and leads_to(name, value)


def _check_runs(func: Any) -> None:
    """Raises CallableError for a function whose call would only make a coroutine or a generator, and run nothing."""
    while type(func) is functools.partial:
        func = func.func
    if not callable(func) and getattr(func, "takes_context", False) is True:
        raise CallableError(
            f"{func!r} cannot be deferred: only its backend has the context for it. Call its `enqueue`."
        )
    code = _code_of(func) or _code_of(getattr(type(func), "__call__", None))  # noqa: B004 (its code is wanted)
    if isinstance(code, types.CodeType) and code.co_flags & _NEVER_RUNS:
        kind = "generator" if code.co_flags & inspect.CO_GENERATOR else "coroutine"
        raise CallableError(
            f"{func!r} cannot be deferred: it is a {kind} function, and calling it would run nothing. Defer a plain "
            f"function that runs it ({'asyncio.run' if kind == 'coroutine' else 'for … in …'})."
        )


def _code_of(func: Any) -> Any:
    return getattr(getattr(func, "__func__", func), "__code__", None)


def _why_not(func: Any, name: str | None) -> str:
    qualname = getattr(func, "__qualname__", "")
    if "<lambda>" in qualname:
        return "it is a lambda, which has no name to find it by. Define a function in a module."
    if "<locals>" in qualname:
        return "it is defined inside a function, where nobody else can find it. Move it to the top of its module."
    return f"{name} does not lead back to it (is it replaced by a decorator, or not at the top of its module?)."


def from_ref(ref: Any, config: Config) -> Callable[..., Any]:
    """The callable of a Ref. Raises CallableNotFoundError, CallableForbiddenError or DecodeError."""
    if type(ref) is str:
        known = config.policy.known.get(ref)
        if known is not None and getattr(sys.modules.get(known[2]), known[3], None) is known[1]:
            return known[1]  # type: ignore[return-value]
        found = _resolve_and_check(ref, config)
        _remember(ref, ref, found, config)
        return found
    match ref:
        case ["method", owner, str() as name]:
            return _method(owner, name, config)
        case ["partial", inner, list() as args, dict() as kwargs]:
            return functools.partial(from_ref(inner, config), *args, **kwargs)
        case ["instance", func]:
            config.policy.check(_class_name(func))
            if not callable(func) or isinstance(func, _NAMED):
                raise DecodeError(f"A {_class_name(func)} is no callable instance.")
            return func  # type: ignore[no-any-return]
    raise DecodeError("The task does not say what to call.")


def _resolve_and_check(ref: str, config: Config) -> Callable[..., Any]:
    """A name may lead to something under another one (`shop.tasks:os.system`), which must be allowed as well."""
    config.policy.check(ref)
    found = resolve(ref)
    own = name_of(found)
    if own is not None and own != ref:
        config.policy.check(own)
    if isinstance(found, functools.partial):
        check_partial(found, config)
    if not callable(found) and not callable(getattr(found, "call", None)):
        raise DecodeError(f"{ref} is not callable.")
    return found  # type: ignore[no-any-return]


def check_partial(found: functools.partial[Any], config: Config) -> None:
    """Raises CallableForbiddenError for a partial of something that is forbidden."""
    inner = name_of(found.func)
    if inner is not None:
        config.policy.check(inner)


def _method(owner: Any, name: str, config: Config) -> Callable[..., Any]:
    if isinstance(owner, types.ModuleType | type | types.FunctionType):
        raise DecodeError(f"{owner!r} is no instance to call a method of.")
    config.policy.check(f"{_class_name(owner)}.{name}")
    try:
        method = getattr(owner, name)
    except AttributeError as error:
        raise CallableNotFoundError(f"{_class_name(owner)} has no method {name!r}.") from error
    if not (isinstance(method, _BOUND) and method.__self__ is owner):
        _check_of_class(method, owner, name, config)
    return method  # type: ignore[no-any-return]


def _check_of_class(found: Any, owner: Any, name: str, config: Config) -> None:
    """A class may have something else in a method's place (a test, a mock of it), which must be allowed as well."""
    if not callable(found) or found is not getattr(type(owner), name, None):
        raise DecodeError(f"{_class_name(owner)}.{name} is no method.")
    own = name_of(found)
    if own is not None:
        config.policy.check(own)


def to_call(found: Any) -> Callable[..., Any]:
    """What to call of a decoded callable: a Django task is called by its `call`."""
    return found if callable(found) else found.call  # type: ignore[no-any-return]


def resolve(name: str) -> Any:
    """The object that `module:qualname` names. Raises CallableNotFoundError."""
    module_name, colon, qualname = name.partition(":")
    if not (module_name and colon and qualname):
        raise CallableNotFoundError(f"{name!r} is not of the form 'module:qualname'.")
    try:
        found: Any = import_module(module_name)
        for part in qualname.split("."):
            found = getattr(found, part)
    except Exception as error:  # a module may raise anything while it is imported: the next deploy may mend it
        raise CallableNotFoundError(f"{name} cannot be found: {error!r}") from error
    return found


def label(func: Any) -> str:
    """What to call a callable in a list for people."""
    if type(func) is types.FunctionType:
        return f"{func.__module__}:{func.__qualname__}"
    inner = func
    while isinstance(inner, functools.partial):
        inner = inner.func
    return name_of(inner) or _class_name(inner)
