"""Whether a call's arguments fit the callable: what would be a TypeError there is refused at `defer()`.

A call that would run is never refused. So a function's own code decides: the signature that `functools.wraps` or a
`__signature__` declares may be another function's. If nothing is certain, the call passes.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ..config import nearest
from ..errors import OptionError
from ..wire.callables import label, task_function
from .options import NAMES

_ALIASES = {
    **dict.fromkeys(("delay", "in", "after"), "_countdown"),
    **dict.fromkeys(("at", "when"), "_eta"),
}
"""Names that people try for an option."""
_BUILT_IN = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType)
_PLACEHOLDER = getattr(functools, "Placeholder", object())
"""Leaves a positional argument of a partial open, from Python 3.14 on."""


def check(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], options: Collection[str] = NAMES
) -> None:
    """Raise OptionError for a call that would be a TypeError, naming which of the `options` may have been meant."""
    if type(func) is types.FunctionType and _fits(func, len(args), kwargs):
        return
    called, before, keywords = _called(task_function(func), kwargs)
    positional = before + len(args)
    is_function = isinstance(called, types.FunctionType)
    if is_function and _fits(called, positional, keywords):
        return
    signature = _signature(called)
    if signature is None:
        return
    why = _misfit(signature, positional, keywords)
    if why is not None or is_function:
        said = why or "a positional-only parameter is given by its name"  # which some versions of Python bind
        shown, hint = _without_first(signature, before), _hint(keywords, signature.parameters, options) or "."
        raise OptionError(f"The call does not fit {label(func)}{shown}: {said}{hint}")


def _misfit(signature: inspect.Signature, positional: int, keywords: Mapping[str, Any]) -> str | None:
    """Return what Python says of a call that does not fit, else None."""
    try:
        signature.bind(*(None,) * positional, **keywords)
    except TypeError as error:
        return str(error)
    return None


def _called(func: Any, keywords: Mapping[str, Any]) -> tuple[Any, int, Mapping[str, Any]]:
    """Return what is called in the end, how many positional arguments come before the caller's, and all keyword
    arguments."""
    before = 0
    while not isinstance(func, (types.FunctionType, *_BUILT_IN)):
        if isinstance(func, functools.partial):
            before += sum(each is not _PLACEHOLDER for each in func.args)
            func, keywords = func.func, {**func.keywords, **keywords}
        elif isinstance(func, types.MethodType):
            func, before = func.__func__, before + 1
        elif isinstance(func, type):
            func, before = _constructor(func), before + 1
        else:
            func = _call_of(func)
    return func, before, keywords


def _constructor(cls: Any) -> Any:
    """Return what the call of a class calls. A custom `__new__` may return anything, so it is unknown whether
    `__init__` is called after it."""
    for holder, name in ((type(cls), "__call__"), (cls, "__new__"), (cls, "__init__")):
        found = getattr(holder, name)
        if isinstance(found, types.FunctionType):
            return found
    return _takes_nothing if cls.__new__ is object.__new__ and cls.__init__ is object.__init__ else _takes_all


def _call_of(instance: Any) -> Any:
    """Return the `__call__` of an instance, if it is written in Python."""
    found = next((vars(each)["__call__"] for each in type(instance).__mro__ if "__call__" in vars(each)), None)
    if isinstance(found, types.FunctionType | classmethod | staticmethod):
        return found.__get__(instance, type(instance))
    return _takes_all


def _takes_all(*args: Any, **kwargs: Any) -> None: ...


def _takes_nothing(self: Any) -> None: ...


def _fits(func: types.FunctionType, positional: int, keywords: Collection[str]) -> bool:
    """Return True if a function takes so many positional arguments and these keywords. It takes a hundredth of the time
    of `inspect.Signature`."""
    code = func.__code__
    most, flags = code.co_argcount, code.co_flags
    least = most - len(func.__defaults__ or ())
    if positional > most and not flags & inspect.CO_VARARGS:
        return False
    only = code.co_kwonlyargcount
    if not keywords and not only:
        return positional >= least
    if not most and not only:
        return bool(flags & inspect.CO_VARKEYWORDS)
    names, by_position, optional = code.co_varnames[: most + only], code.co_posonlyargcount, func.__kwdefaults__ or ()
    filled, missing = min(positional, most), max(least - positional, 0)
    if only:
        missing += sum(name not in optional for name in names[most:])
    for key in keywords:
        at = names.index(key) if key in names else -1
        if at < filled or at < by_position:  # another name, or one that is not open (any more)
            if at >= by_position or not flags & inspect.CO_VARKEYWORDS:
                return False
        elif at < least or (at >= most and key not in optional):
            missing -= 1
    return missing == 0


def _signature(called: Any) -> inspect.Signature | None:
    """Return the signature that really applies, else None."""
    if isinstance(called, types.FunctionType):
        bare = types.FunctionType(called.__code__, {}, None, called.__defaults__, called.__closure__)
        bare.__kwdefaults__ = called.__kwdefaults__
        return inspect.signature(bare)
    try:
        return inspect.signature(called)
    except (TypeError, ValueError):
        return None


def _without_first(signature: inspect.Signature, number: int) -> inspect.Signature:
    """Return a signature as the caller sees it, without the arguments that are already given."""
    parameters = enumerate(signature.parameters.values())
    return signature.replace(
        parameters=[each for at, each in parameters if at >= number or each.kind is each.VAR_POSITIONAL]
    )


def _hint(keywords: Collection[str], parameters: Mapping[str, Any], options: Collection[str]) -> str:
    """Return `; did you mean '_countdown'?` for the first keyword that is not taken, or an empty string."""
    for key in keywords:
        if key not in parameters:
            return _nearest(key, set(parameters), set(options))
    return ""


def _nearest(key: str, own: set[str], options: set[str]) -> str:
    word = key.strip("_")
    option = _ALIASES.get(word, f"_{word}")
    if option in options:
        return f"; did you mean {option!r}?"
    return nearest(key, own) or nearest(f"_{word}", options)
