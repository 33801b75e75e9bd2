"""Pickle, for the values that the codec has no form for: registered types inside travel as registered, and what may not
be called may not be carried either.

This is not a sandbox: whoever may post an unsigned task, may run code. Signatures and `allow_pickle=False` are.
"""

from __future__ import annotations

import io
import pickle
import types
from typing import Any

from .callables import name_of
from .errors import CallableForbiddenError, CallableNotFoundError, DeferError, UnknownTypeError, UnserializableError
from .policy import Policy
from .registry import named, registered

PROTOCOL = 5
_NAMED = (types.FunctionType, types.BuiltinFunctionType, type)
_PARTS = frozenset({"builtins:getattr"})
"""What pickle itself makes bound methods and nested classes of."""


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, policy: Policy) -> None:
        super().__init__(file, PROTOCOL)
        self._policy = policy
        self._begun: dict[int, Any] = {}

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, _NAMED):
            name = name_of(obj)
            if name is not None and name not in _PARTS:
                self._policy.check_not_forbidden(name)
            return NotImplemented
        how = registered(type(obj))
        if how is None:
            return NotImplemented
        # pickle asks only once for an object that it has finished: asked again, it is still at it
        if id(obj) in self._begun:
            raise UnserializableError(f"a {type(obj).__qualname__} in it contains itself")
        plain = how.encode(obj)
        if plain is NotImplemented:
            return NotImplemented
        self._begun[id(obj)] = obj
        return revive, (how.name, plain)


class Unpickler(pickle.Unpickler):
    """Makes nothing of what may not be called."""

    def __init__(self, file: io.BytesIO, policy: Policy) -> None:
        super().__init__(file)
        self._policy = policy

    def find_class(self, module: str, name: str) -> Any:
        given = f"{module}:{name}"
        try:
            found = super().find_class(module, name)
        except (ImportError, AttributeError) as error:
            raise CallableNotFoundError(f"A value of the task needs {given}, which is not here: {error}") from error
        if isinstance(found, types.ModuleType):
            raise CallableForbiddenError(f"A value of the task names the module {given}.", name=given)
        for each in {given, name_of(found) or given} - _PARTS:
            self._policy.check_not_forbidden(each)
        return found


def revive(name: str, plain: Any) -> Any:
    """The value of a registered type, inside a pickle. (Pickles name this function: it stays where it is.)"""
    return named(name).decode(plain)


def dumps(value: Any, policy: Policy) -> bytes:
    """The pickle of a value. Raises UnserializableError, or whatever the value raises when it is pickled."""
    file = io.BytesIO()
    _Pickler(file, policy).dump(value)
    data = file.getvalue()
    if isinstance(value, BaseException):
        _check_loads(value, data, policy)
    return data


def _check_loads(value: BaseException, data: bytes, policy: Policy) -> None:
    """An exception whose `__init__` takes something else than its `args` pickles well, and never comes back."""
    try:
        loads(data, policy)
    except Exception as error:
        raise UnserializableError(f"its pickle cannot be read again: {error.__cause__ or error}") from error


def loads(data: bytes, policy: Policy) -> Any:
    """The value of a pickle. Raises CallableNotFoundError, CallableForbiddenError or UnknownTypeError."""
    try:
        return Unpickler(io.BytesIO(data), policy).load()
    except DeferError:
        raise
    except Exception as error:
        raise UnknownTypeError(f"A pickled value of the task cannot be made again: {error!r}") from error
