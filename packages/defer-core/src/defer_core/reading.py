"""From packed bytes back to values; the other half of `codec.py`."""

from __future__ import annotations

import datetime as dt
import enum
from typing import Any

import msgpack

from . import callables, pickling
from . import exttypes as ext
from .config import Config
from .errors import DecodeError, DeferError, UnknownTypeError
from .registry import named

MAX_LEVELS = 100
"""How deep ext types (tuples, sets, registered types) may lie in each other."""
MAX_HELD = 160 * 1024 * 1024
"""Bytes that all open levels may have while they are read: each is a copy of what is in it."""
_READERS = ext.READERS  # a name of this module is found faster than another's


class _Reader:
    """Reads the values at one depth of ext types; it keeps nothing of what it read."""

    __slots__ = ("_depth", "_held", "config")

    def __init__(self, config: Config, depth: int = 0, held: int = 0) -> None:
        self.config = config
        self._depth = depth
        self._held = held

    def read(self, data: bytes) -> Any:
        return msgpack.unpackb(data, ext_hook=self._decode, strict_map_key=False, unicode_errors="surrogatepass")

    def _nested(self, data: bytes) -> Any:
        if self._depth >= MAX_LEVELS:
            raise DecodeError(f"The payload is nested more than {MAX_LEVELS} levels deep.")
        held = self._held + len(data)
        if held > MAX_HELD:
            raise DecodeError("The payload has too much in too many levels: they would take memory without end.")
        return _Reader(self.config, self._depth + 1, held).read(data)

    def _decode(self, code: int, data: bytes) -> Any:
        how = _READERS.get(code)
        if how is not None:
            from_bytes, size = how
            if size and len(data) > size:
                zone = data[size:]
                return from_bytes(data[:size], dt.timezone.utc if zone == ext.PACKED_UTC else self._nested(zone))
            return from_bytes(data)
        if code in ext.MAKERS:
            return ext.MAKERS[code](_list(self._nested(data)))
        if code == ext.PICKLE:
            return self._unpickle(data)
        if code == ext.NAMED:
            return self._revive(self._nested(data))
        if code == ext.CALLABLE:
            return callables.from_ref(self._nested(data), self.config)
        if code == ext.ENUM:
            return _enum_from_plain(self._nested(data))
        if code in ext.REBUILDERS:
            return self._rebuild(code, self._nested(data))
        raise UnknownTypeError(f"The task holds a value of the ext type {code}, which this release does not know.")

    def _unpickle(self, data: bytes) -> Any:
        if not self.config.allow_pickle:
            raise DecodeError("The task holds a pickled value, and pickle is not allowed (`allow_pickle` is False).")
        return pickling.loads(data, self.config.policy)

    def _revive(self, content: Any) -> Any:
        name, plain = content
        how = named(name)
        try:
            return how.decode(plain)
        except DeferError:
            raise
        except Exception as error:
            raise UnknownTypeError(f"A value of the type {name!r} cannot be made again: {error!r}") from error

    def _rebuild(self, code: int, plain: Any) -> Any:
        try:
            return ext.REBUILDERS[code](plain)
        except (ImportError, LookupError) as error:  # a zone or a library that is not here
            raise UnknownTypeError(f"A value of the task cannot be made again: {error!r}") from error


_latest = _Reader(Config())


def reader(config: Config) -> _Reader:
    """The reader of a configuration."""
    global _latest
    latest = _latest  # another thread may change it meanwhile
    if latest.config is not config:
        latest = _latest = _Reader(config)
    return latest


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise DecodeError("A tuple or set of the task is not made of a list.")
    return value


def _enum_from_plain(plain: Any) -> enum.Enum:
    ref, name, *value = plain
    kind = callables.resolve(ref)
    if not isinstance(kind, enum.EnumMeta):
        raise DecodeError(f"{ref} is no Enum.")
    try:
        return kind(value[0]) if name is None else kind[name]
    except (KeyError, ValueError) as error:
        raise UnknownTypeError(f"{ref} has no member {value[0] if name is None else name!r} here.") from error
