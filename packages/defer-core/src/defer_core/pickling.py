"""Pickle, for values that the encoder has no form for. Registered types inside travel as registered, and what may not
be called may not be carried either.

This is not a sandbox: anyone who can post an unsigned task can run code. Signatures and `allow_pickle=False` prevent
that.
"""

from __future__ import annotations

import io
import pickle
import types
from collections.abc import Callable, Sequence
from typing import Any

from .config.policy import Policy
from .errors import (
    CallableForbiddenError,
    CallableNotFoundError,
    DeferError,
    RefersBackError,
    UnknownTypeError,
    UnreadableError,
    UnserializableError,
)
from .wire import rereading, script
from .wire.callables import name_of
from .wire.registry import RegisteredType, named, registered

PROTOCOL = 5
_NAMED = (types.FunctionType, types.BuiltinFunctionType, type)
_PARTS = frozenset({"builtins:getattr"})
"""The function by which pickle itself makes bound methods and nested classes."""


Reducer = Callable[[Any], Any]


class _Pickler(pickle.Pickler):
    """Pickles one value. `above` are values that contain it; `of_main` reduces objects of `__main__`. With `loops`,
    values that refer to themselves are left to pickle if their type allows it."""

    def __init__(
        self, file: io.BytesIO, policy: Policy, above: Sequence[Any], of_main: Reducer, *, loops: bool
    ) -> None:
        super().__init__(file, PROTOCOL)
        self._policy, self._above, self._reduced_of_main, self._loops = policy, above, of_main, loops
        self._begun: dict[int, Any] = {}
        self.kinds: set[type] = set()
        """The classes of what it pickled, without registered ones."""
        self.is_ours = True
        """True if it can be read again without calling a project's `decode`."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, _NAMED):
            return self._reduced_by_name(obj)
        how = registered(type(obj))
        if how is not None and (reduced := self._reduced_as_registered(obj, how)) is not NotImplemented:
            return reduced
        self.kinds.add(type(obj))
        return NotImplemented

    def _reduced_by_name(self, obj: Any) -> Any:
        name = name_of(obj)
        if name is not None and name not in _PARTS:
            self._policy.check_not_forbidden(name)
        if obj.__module__ not in script.MAIN:
            return NotImplemented
        if (name or "").startswith("__main__:"):
            raise UnserializableError(script.REFUSAL)
        return self._reduced_of_main(obj)  # pickle itself would write `__main__`

    def _reduced_as_registered(self, obj: Any, how: RegisteredType) -> Any:
        # pickle asks only once for an object that it has finished: if it asks again, it is still inside the object
        if id(obj) in self._begun or any(obj is each for each in self._above):
            raise RefersBackError(f"a {type(obj).__qualname__} in it contains itself", value=obj)
        if self._loops and how.reduce is not None:
            self.kinds.add(type(obj))
            return how.reduce(obj)
        plain = how.encode(obj)
        if plain is NotImplemented:
            return NotImplemented
        self._begun[id(obj)] = obj
        self.is_ours = self.is_ours and (how.decode.__module__ or "").startswith("defer_")
        return revive, (how.name, plain)


class Unpickler(pickle.Unpickler):
    """Refuses what may not be called."""

    def __init__(self, file: io.BytesIO, policy: Policy) -> None:
        super().__init__(file)
        self._policy = policy

    def find_class(self, module: str, name: str) -> Any:
        given = f"{module}:{name}"
        self._check(given)  # before it is imported
        try:
            found = super().find_class(module, name)
        except (ImportError, AttributeError) as error:
            raise CallableNotFoundError(f"A value of the task needs {given}, which is not here: {error}") from error
        if isinstance(found, types.ModuleType):
            raise CallableForbiddenError(f"A value of the task names the module {given}.", name=given)
        self._check(name_of(found) or given)
        return found

    def _check(self, name: str) -> None:
        if name not in _PARTS:
            self._policy.check_not_forbidden(name)


def revive(name: str, plain: Any) -> Any:
    """Return the value of a registered type, inside a pickle. (Pickles name this function: it stays where it is.)"""
    return named(name).decode(plain)


def dumps(value: Any, policy: Policy, above: Sequence[Any], of_main: Reducer) -> bytes:
    """Return the pickle of a value, which is a part of the values `above`. Raises UnreadableError, RefersBackError for
    a value that refers to one of those, or what the value raises when it is pickled."""
    try:
        return _dumped(value, policy, above, of_main, loops=False)
    except RefersBackError as error:
        how = registered(type(error.value))
        if how is None or how.reduce is None or any(error.value is each for each in above):
            raise
        return _dumped(value, policy, above, of_main, loops=True)


def _dumped(value: Any, policy: Policy, above: Sequence[Any], of_main: Reducer, *, loops: bool) -> bytes:
    file = io.BytesIO()
    pickler = _Pickler(file, policy, above, of_main, loops=loops)
    pickler.dump(value)
    data = file.getvalue()
    if pickler.is_ours and rereading.is_needed(pickler.kinds):
        _check_loads(data, policy)
        rereading.succeeded(pickler.kinds)
    return data


def _check_loads(data: bytes, policy: Policy) -> None:
    """Raise UnreadableError for a pickle that cannot be read again: an exception whose `__init__` takes something else
    than its `args` pickles well, and never comes back."""
    try:
        loads(data, policy)
    except Exception as error:
        raise UnreadableError(f"its pickle cannot be read again: {error.__cause__ or error}") from error


def loads(data: bytes, policy: Policy) -> Any:
    """Return the value of a pickle. Raises CallableNotFoundError, CallableForbiddenError or UnknownTypeError."""
    try:
        return Unpickler(io.BytesIO(data), policy).load()
    except DeferError:
        raise
    except Exception as error:
        raise UnknownTypeError(f"A pickled value of the task cannot be unpickled: {error!r}") from error
