"""Values to bytes: msgpack, with an ext type for what msgpack lacks, and pickle for the rest if allowed.

Exact types only: a subclass of str, int, dict and so on is never flattened into its base.
"""

from __future__ import annotations

import datetime as dt
import enum
import gc
from contextvars import ContextVar
from typing import Any

import msgpack

from .. import pickling
from ..config import Config, current
from ..errors import DeferError, RefersBackError, UnserializableError
from ..task import Task
from . import callables, explain, script
from . import types as ext
from .decoder import MAX_LEVELS, unpack
from .pool import Pool
from .registry import RegisteredType, registered

__all__ = ["pack", "pack_call", "wiping"]

_HEADS = {*range(0xC4, 0xCA), *range(0xD4, 0xD9)}
"""First bytes of a bin or an ext: msgpack packs bytearrays, memoryviews and its own types so without asking."""
_SAMPLE = 4096
"""Bytes at the beginning that, for most large values, reveal such heads."""
_HEAD = bytes(byte in _HEADS for byte in range(256))
_HIDDEN = frozenset({bytearray, memoryview, msgpack.ExtType, msgpack.Timestamp})
_CONTAINERS = frozenset({list, dict})
_MANY = 100
"""Members from which on it pays to check whether they are all numbers."""
_NUMBERS = frozenset({int, float})

_FIXED = ext.FIXED  # a name of this module is found faster than another's
_Ext, _new = msgpack.ExtType, tuple.__new__  # its own __new__ checks what is known here, at twice the time

_wiping: ContextVar[bool] = ContextVar("defer_wiping", default=True)


def wiping() -> bool:
    """Return True if the value being packed should leave the caches of related objects behind
    (`_wipe_related_caches`)."""
    return _wiping.get()


def pack_call(task: Task, config: Config) -> bytes:
    """Return the Payload of a task. Raises CallableError, CallableForbiddenError or UnserializableError."""
    if task.options.wipe_related_caches is not _wiping.get():
        return _wiping_as_asked(task, config)
    call = [callables.to_runnable_ref(task.func, config), list(task.args), dict(task.kwargs)]
    try:
        return _pack(call, config)
    except Exception as error:
        steps = [
            *((f"args[{index}]", each) for index, each in enumerate(task.args)),
            *((f"kwargs[{key!r}]", each) for key, each in task.kwargs.items()),
            ("func", task.func),
        ]
        raise explain.explain(error, steps, lambda value: _pack(value, config)) from error


def _wiping_as_asked(task: Task, config: Config) -> bytes:
    token = _wiping.set(task.options.wipe_related_caches)
    try:
        return pack_call(task, config)
    finally:
        _wiping.reset(token)


def pack(value: Any, config: Config | None = None) -> bytes:
    """Return the bytes of a value. Raises UnserializableError or CallableForbiddenError."""
    config = config or current()
    try:
        return _pack(value, config)
    except Exception as error:
        raise explain.explain(error, [("", value)], lambda inner: _pack(inner, config)) from error


class _Hidden:
    """Wraps a value that msgpack would pack as something else, so that it calls `default`."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class _Level:
    """A packer for the values at one depth of ext types: a msgpack Packer cannot be used inside its own `default`."""

    __slots__ = ("_above", "_at", "_below", "_depth", "_packer", "config")

    def __init__(self, depth: int = 0, above: _Level | None = None) -> None:
        self._depth = depth
        self._above = above
        self._below: _Level | None = None
        self._at: Any = None
        """The value of a registered type that is being packed here, level by level."""
        self._packer = msgpack.Packer(
            default=self._encode, strict_types=True, unicode_errors="surrogatepass", buf_size=1024
        )
        self.config: Config

    def pack(self, value: Any) -> bytes:
        data: bytes = self._packer.pack(value)
        has_head = 1 in data[:_SAMPLE].translate(_HEAD) or (len(data) > _SAMPLE and 1 in data.translate(_HEAD))
        if has_head and _hides(value):
            return self._packer.pack(_shielded(value))  # type: ignore[no-any-return]
        return data

    def _nested(self, value: Any) -> bytes:
        below = self._below
        if below is None:
            if self._depth >= MAX_LEVELS:
                raise UnserializableError(f"it is nested more than {MAX_LEVELS} levels deep, or contains itself")
            below = self._below = _Level(self._depth + 1, self)
        below.config = self.config
        return below.pack(value)

    def _encode(self, obj: Any) -> Any:
        kind = type(obj)
        how = _FIXED.get(kind)
        if how is not None:
            code, to_bytes, zoned = how
            data = to_bytes(obj)
            if zoned and obj.tzinfo is not None:
                data += ext.PACKED_UTC if obj.tzinfo is dt.timezone.utc else self._nested(obj.tzinfo)
            return _new(_Ext, (code, data))
        if kind in ext.SEQUENCES:
            return _ext(ext.SEQUENCES[kind], self._nested(list(obj)))
        if kind is _Hidden:
            return self._encode(obj.value)
        return self._encode_other(obj, kind)

    def _encode_other(self, obj: Any, kind: type) -> Any:
        how = registered(kind)
        if how is not None and (packed := self._as_registered(obj, how)) is not NotImplemented:
            return packed
        if kind is dt.timezone:
            return _ext(ext.TIMEZONE, self._nested(ext.timezone_to_plain(obj)))
        by_name = ext.BY_NAME.get((kind.__module__, kind.__qualname__))
        if by_name is not None:
            return _ext(by_name[0], self._nested(by_name[1](obj)))
        if isinstance(obj, enum.Enum):
            return _ext(ext.ENUM, self._nested(_enum_to_plain(obj)))
        if callables.travels_by_name(obj):
            return _ext(ext.CALLABLE, self._nested(callables.to_ref(obj, self.config)))
        return _ext(ext.PICKLE, self._pickled(obj))

    def _as_registered(self, obj: Any, how: RegisteredType) -> Any:
        """Encode a value of a registered type. One that refers back to itself is left to pickle, if its type allows
        that."""
        if self._depth and any(obj is each for each in self._parents()):
            raise RefersBackError(value=obj)
        self._at = obj
        try:
            plain = how.encode(obj)
            return plain if plain is NotImplemented else _ext(ext.NAMED, self._nested([how.name, plain]))
        except RefersBackError as error:
            if error.value is not obj or how.reduce is None:
                raise
        finally:
            self._at = None
        return _ext(ext.PICKLE, self._pickled(obj))

    def _parents(self) -> list[Any]:
        """Return the values of registered types that contain what is being packed here."""
        found, level = [], self._above
        while level is not None:
            if level._at is not None:
                found.append(level._at)
            level = level._above
        return found

    def _pickled(self, obj: Any) -> bytes:
        if not self.config.allow_pickle:
            raise UnserializableError(
                "pickle is not allowed (`allow_pickle` is False). Pass what it can be made from again (a key, a path), "
                "or `register_type` its class."
            )
        try:
            return pickling.dumps(obj, self.config.policy, self._parents(), _reduced_of_main)
        except DeferError:
            raise
        except Exception as error:
            raise UnserializableError(f"it cannot be pickled: {error}") from error


def _ext(code: int, data: bytes) -> Any:
    return _new(_Ext, (code, data))


_levels = Pool(_Level)


def _pack(value: Any, config: Config) -> bytes:
    level = _levels.take()
    level.config = config
    data = level.pack(value)
    _levels.give_back(level, len(data))
    return data


def _hides(value: Any) -> bool:
    """Return True if, among the native values, there is one that msgpack packs as something else. It goes a level at a
    time: what lists and dicts refer to is their members, and one call returns those of all of them."""
    if type(value) not in _CONTAINERS:
        return type(value) in _HIDDEN
    level = [value]
    while level:
        members = level[0] if len(level) == 1 and type(level[0]) is list else gc.get_referents(*level)
        if len(members) > _MANY and _are_numbers(members):
            return False
        kinds = set(map(type, members))
        if not kinds.isdisjoint(_HIDDEN):
            return True
        if kinds.isdisjoint(_CONTAINERS):
            return False
        level = [each for each in members if type(each) in _CONTAINERS]
    return False


def _are_numbers(members: list[Any]) -> bool:
    """Return True if these can be added up, which none of the hidden types can: the fastest proof for a long list of
    numbers."""
    if type(members[0]) not in _NUMBERS:
        return False
    try:
        return type(sum(members)) in _NUMBERS
    except Exception:
        return False


def _shielded(value: Any) -> Any:
    kind = type(value)
    if kind is list:
        return [_shielded(each) for each in value]
    if kind is dict:
        return {_shielded(key): _shielded(each) for key, each in value.items()}
    return _Hidden(value) if kind in _HIDDEN else value


def _enum_to_plain(member: enum.Enum) -> list[Any]:
    """Return a member by name, and a combination of flags by value."""
    kind = type(member)
    ref = f"{script.name_for_others(kind.__module__)}:{kind.__qualname__}"
    if ref.startswith("__main__:"):
        raise UnserializableError(script.REFUSAL)
    if not callables.leads_to(ref, kind):
        raise UnserializableError(f"its class is not found as {ref}: move it to the top of its module")
    if kind.__members__.get(member.name) is member:
        return [ref, member.name]
    return [ref, None, member.value]


def _reduced_of_main(obj: Any) -> Any:
    """Reduce for pickle an object of `__main__`, whose name pickle would write as it is. (Pickles name `unpack`.)"""
    return unpack, (pack(obj),)
