"""How a callable travels: as `module:qualname`, checked at `defer()` to lead back to the same object.

A Ref is that string, or a list for a callable without a name of its own: `["method", instance, name]`, `["partial",
ref, args, kwargs]` and `["instance", object]`. The encoder packs the values in it.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

from ..config import Config
from ..config.policy import Policy
from ..errors import CallableError, CallableForbiddenError, CallableNotFoundError, DecodeError
from ..text import one_line
from . import script

Ref = str | list[Any]

_BOUND = (types.MethodType, types.BuiltinMethodType, types.MethodWrapperType)
NAMED = (
    types.FunctionType, types.BuiltinFunctionType, type, types.MethodType, types.MethodWrapperType,
    types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType,
)  # fmt: skip
_DUNDER = re.compile("__.*__")
_NEVER_RUNS = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def to_runnable_ref(func: Callable[..., Any], config: Config) -> Ref:
    """Return the Ref of what a task is to call. Raises CallableError, also for a function whose call would run nothing,
    or CallableForbiddenError."""
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
    """Cache what was found at the top of a module; an entry counts as long as the module still has that object."""
    module, _, name = ref.partition(":")
    if getattr(sys.modules.get(module), name, None) is found:
        config.policy.keep(key, (ref, found, module, name))


def to_ref(func: Callable[..., Any], config: Config) -> Ref:
    """Return the Ref of a callable. Raises CallableError (saying why) or CallableForbiddenError."""
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
        if name.startswith("__main__:"):
            raise CallableError(f"{func!r} cannot be deferred: {script.REFUSAL}")
        config.policy.check(name)
        if leads_to(name, func):
            return name
    owner = getattr(func, "__self__", None)
    if isinstance(func, _BOUND) and owner is not None and not isinstance(owner, types.ModuleType | type):
        return _ref_of_method(func, owner, config)
    if isinstance(func, NAMED) or (not callable(func) and hasattr(type(func), "call")):
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
    """Return the `module:qualname` by which a callable might be found, else None."""
    target = task_function(func)
    owner = getattr(target, "__self__", None)
    name = getattr(target, "__name__", None)
    if isinstance(owner, type) and isinstance(name, str):  # a classmethod: of the class it was taken from
        return f"{script.name_for_others(owner.__module__)}:{owner.__qualname__}.{name}"
    holder = getattr(target, "__objclass__", None)  # str.upper
    module = getattr(holder, "__module__", None) or getattr(target, "__module__", None)
    if isinstance(owner, types.ModuleType):
        module = owner.__name__
    if module is owner is None and isinstance(target, types.BuiltinFunctionType):
        module = "builtins"  # str.maketrans says nothing of where it is
    qualname = getattr(target, "__qualname__", None)
    if not (isinstance(module, str) and isinstance(qualname, str)):
        return None
    return f"{script.name_for_others(module)}:{qualname}"


def task_function(func: Any) -> Any:
    """Return the function of a Django task, which is not callable itself; anything else as it is."""
    return getattr(func, "func", func) if not callable(func) and hasattr(func, "call") else func


def _class_name(value: Any) -> str:
    return f"{script.name_for_others(type(value).__module__)}:{type(value).__qualname__}"


def leads_to(name: str, func: Any) -> bool:
    """Return True if a name resolves to this very object; for a script that was also imported as a module, to the
    object that the script has."""
    module, _, qualname = name.partition(":")
    return _resolves_to(name, func) or (
        module == script.name_for_others("__main__") and _resolves_to(f"__main__:{qualname}", func)
    )


def _resolves_to(name: str, func: Any) -> bool:
    try:
        return _is_same(resolve(name), func)
    except (CallableNotFoundError, CallableForbiddenError):
        return False


def _is_same(found: Any, func: Any) -> bool:
    """Compare by identity, and bound methods by equality: they are made anew at each lookup."""
    return found is func or (isinstance(func, _BOUND) and type(found) is type(func) and bool(found == func))


def travels_by_name(value: Any) -> bool:
    """Return True if a value among the arguments travels as a Ref: functions, classes, methods, partials, Django
    tasks."""
    if isinstance(value, NAMED) or type(value) is functools.partial:
        return True
    name = name_of(value) if callable(value) or hasattr(type(value), "call") else None
    return name is not None and leads_to(name, value)


def _check_runs(func: Any) -> None:
    """Raise CallableError for a function whose call would only make a generator and run nothing."""
    while type(func) is functools.partial:
        func = func.func
    if not callable(func) and getattr(func, "takes_context", False) is True:
        raise CallableError(
            f"{func!r} cannot be deferred: it takes a context, which only its backend has. Call its `enqueue`."
        )
    code = _code_of(func) or _code_of(getattr(type(func), "__call__", None))  # noqa: B004 (its code is wanted)
    flags = code.co_flags if isinstance(code, types.CodeType) else 0
    if flags & _NEVER_RUNS and not flags & inspect.CO_ITERABLE_COROUTINE:
        raise CallableError(
            f"{func!r} cannot be deferred: it is a generator function, and calling it would run nothing. Defer a "
            "function that runs it (for … in …)."
        )


def _code_of(func: Any) -> Any:
    return getattr(getattr(func, "__func__", func), "__code__", None)


def _why_not(func: Any, name: str | None) -> str:
    qualname = getattr(func, "__qualname__", "")
    if "<lambda>" in qualname:
        return "it is a lambda, which has no name to find it by. Define a function in a module."
    if "<locals>" in qualname:
        return "it is defined inside a function, where no other process can find it. Move it to the top of its module."
    return f"{name} does not lead back to it (is it replaced by a decorator, or not at the top of its module?)."


def from_ref(ref: Any, config: Config) -> Callable[..., Any]:
    """Return the callable of a Ref. Raises CallableNotFoundError, CallableForbiddenError or DecodeError."""
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
            if not callable(func) or isinstance(func, NAMED):
                raise DecodeError(f"A {_class_name(func)} is no callable instance.")
            return func  # type: ignore[no-any-return]
    raise DecodeError("The task does not say what to call.")


def _resolve_and_check(ref: str, config: Config) -> Callable[..., Any]:
    """Resolve a name, and check also the true name of what it leads to: `shop.tasks:os.system` may be allowed by its
    name, and is not a task of the shop."""
    config.policy.check(ref)
    found = resolve(ref)
    config.policy.check(true_name(found))
    if not callable(found) and not callable(getattr(found, "call", None)):
        raise DecodeError(f"{one_line(ref)} is not callable.")
    return found  # type: ignore[no-any-return]


def true_name(found: Any) -> str:
    """Return the name by which a callable must be allowed, whatever name has led to it. A callable without a name of
    its own goes by its class: a method of a plain object (`builtins:list.append`), a callable instance. A partial goes
    by what it calls."""
    while isinstance(found, functools.partial):
        found = found.func
    name = name_of(found)
    if name is None and isinstance(found, _BOUND):
        return f"{_class_name(found.__self__)}.{found.__name__}"
    return name or _class_name(found)


def _method(owner: Any, name: str, config: Config) -> Callable[..., Any]:
    if isinstance(owner, types.ModuleType | type | types.FunctionType):
        raise DecodeError(f"{one_line(owner)} is no instance to call a method of.")
    given = f"{_class_name(owner)}.{name}"
    config.policy.check(given)
    try:
        method = getattr(owner, name)
    except AttributeError as error:
        raise CallableNotFoundError(f"{_class_name(owner)} has no method {one_line(name)!r}.") from error
    is_bound = isinstance(method, _BOUND) and method.__self__ is owner
    # a class may have something else in a method's place: a test, a mock of it
    if not is_bound and not (callable(method) and method is getattr(type(owner), name, None)):
        raise DecodeError(f"{one_line(given)} is no method.")
    config.policy.check(true_name(method))
    return method  # type: ignore[no-any-return]


def to_call(found: Any) -> Callable[..., Any]:
    """Return the function to call for a decoded callable: of a Django task, its `call`."""
    return found if callable(found) else found.call  # type: ignore[no-any-return]


def resolve(name: str) -> Any:
    """Return the object that `module:qualname` names. Raises CallableNotFoundError; or CallableForbiddenError for a
    path that no function or class is at the end of: through other modules, or through what every object has
    (`__globals__`)."""
    module_name, colon, qualname = name.partition(":")
    parts = qualname.split(".")
    if not (module_name and colon and qualname):
        raise CallableNotFoundError(f"{one_line(repr(name))} is not of the form 'module:qualname'.")
    passes = any(map(_DUNDER.fullmatch, parts[:-1]))
    if not passes:
        try:
            found: Any = script.module_named(module_name)
            for part in parts:
                found = getattr(found, part)
                passes = passes or isinstance(found, types.ModuleType)
        except (Exception, SystemExit) as error:  # a module may raise anything, and the next deploy may fix it
            raise CallableNotFoundError(f"{one_line(name)} cannot be found: {error!r}") from error
    if passes:
        raise CallableForbiddenError(
            f"{one_line(name)} leads through a module, or an attribute of Python's.", name=name
        )
    return found


def resolve_class(name: str, policy: Policy) -> Any:
    """Return what `module:qualname` names, for a value. Under an allow-list only what the list names is imported for
    it; anything else must be loaded already. Raises CallableNotFoundError."""
    if policy.may_import(name):
        return resolve(name)
    module_name, _, qualname = name.partition(":")
    found: Any = script.loaded(module_name)
    try:
        for part in qualname.split("."):
            found = inspect.getattr_static(found, part)  # a module's `__getattr__` may import, too
    except AttributeError as error:
        message = f"{one_line(name)} is not loaded here, nor among the configured `callables`."
        raise CallableNotFoundError(message) from error
    return found


def label(func: Any, args: Sequence[Any] = ()) -> str:
    """Return the name of a callable for lists and logs; for one that only calls its first argument, the name of
    that."""
    if args and getattr(func, "calls_its_first", False):
        return label(args[0])
    if type(func) is types.FunctionType:
        return f"{script.name_for_others(func.__module__)}:{func.__qualname__}"
    inner = func
    while isinstance(inner, functools.partial):
        inner = inner.func
    return name_of(inner) or _class_name(inner)
