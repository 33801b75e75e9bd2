"""From packed bytes back to values; the other half of `encoder.py`."""

from __future__ import annotations

import datetime as dt
import enum
import sys
from collections.abc import Callable, Iterable
from typing import Any

import msgpack

from .. import pickling
from ..config import Config, current
from ..config.policy import Policy
from ..errors import DecodeError, DeferError, UnknownTypeError
from ..text import one_line
from . import callables
from . import types as ext
from .registry import named

MAX_LEVELS = 100
"""How deeply ext types (tuples, sets, registered types) may be nested."""
MAX_HELD = 160 * 1024 * 1024
"""Bytes that the levels being read may have in all: each level is a copy of what is in it."""
MAX_COLLIDING = 100
"""Keys of a dict, or members of a set, that may share a hash with others: each is compared with all of these. (Numbers,
and values made of numbers, can be chosen to collide.)"""
_HARMLESS = 1024
"""Bytes with too few keys for collisions to matter."""
_EXT_HEADS = bytes((*range(0xC7, 0xCA), *range(0xD4, 0xD9)))
_CALL = b"\x93"
"""The first byte of a packed list of three."""
_PARTIAL = b"\x94\xa7partial"
"""The first bytes of the Ref of a partial."""
_PLAIN_DICT = None if getattr(msgpack.Unpacker, "__module__", "").startswith("msgpack._cmsgpack") else dict
"""The hook by which msgpack makes a dict: its pure Python version cannot make one by itself if a key is of a subclass
of str."""
_READERS = ext.READERS  # a name of this module is found faster than another's


def unpack_call(payload: bytes, config: Config) -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
    """Return callable, args and kwargs of a Payload. Raises DecodeError or NotYetReadableError."""
    try:
        reading = _reader(config)
        func = reading.find_callable(payload, 1) if payload[:1] == _CALL else None
        ref, args, kwargs = call = reading.read(payload)
        if type(call) is list and type(args) is list and type(kwargs) is dict:
            return callables.to_call(callables.from_ref(ref, config) if func is None else func), args, kwargs
    except DeferError:
        raise
    except Exception as error:
        raise DecodeError(f"The payload cannot be read: {error!r}") from error
    raise DecodeError("The payload of the task is not a call.")


def unpack(data: bytes, config: Config | None = None) -> Any:
    """Return the value of some bytes. Raises DecodeError, or NotYetReadableError for a type or callable that this
    process does not have. (Pickles name this function: it stays where it is.)"""
    try:
        return _reader(config or current()).read(data)
    except DeferError:
        raise
    except Exception as error:
        raise DecodeError(f"The payload cannot be read: {error!r}") from error


class _Reader:
    """Reads the values at one depth of ext types; stateless, so it can be reused."""

    __slots__ = ("_depth", "_size", "config")

    def __init__(self, config: Config, depth: int = 0, size: int = 0) -> None:
        self.config = config
        self._depth = depth
        self._size = size

    def read(self, data: bytes) -> Any:
        return msgpack.unpackb(
            data,
            ext_hook=self._decode,
            object_pairs_hook=_dict if len(data) > _HARMLESS and _may_collide(data) else _PLAIN_DICT,
            strict_map_key=False,
            unicode_errors="surrogatepass",
        )

    def find_callable(self, data: bytes, start: int = 0) -> Any:
        """Find the callable whose Ref begins at `start`, or the one that a partial calls, before its arguments are
        read: so a forbidden callable is refused first, and an allowed one's module is loaded first, with the classes of
        its arguments. Returns None for a Ref that is more than a name. Raises what `callables.from_ref` raises."""
        name = _name_at(data, start)
        if name is not None:
            return callables.from_ref(name, self.config)
        if data.startswith(_PARTIAL, start) and (name := _name_at(data, start + len(_PARTIAL))) is not None:
            callables.from_ref(name, self.config)
        return None

    def _nested(self, data: bytes) -> Any:
        if self._depth >= MAX_LEVELS:
            raise DecodeError(f"The payload is nested more than {MAX_LEVELS} levels deep.")
        size = self._size + len(data)
        if size > MAX_HELD:
            raise DecodeError(
                f"The payload nests too much, too deeply: it would take more than {MAX_HELD} bytes of memory."
            )
        return _Reader(self.config, self._depth + 1, size).read(data)

    def _decode(self, code: int, data: bytes) -> Any:
        how = _READERS.get(code)
        if how is not None:
            from_bytes, size = how
            if size and len(data) > size:
                zone = data[size:]
                return from_bytes(data[:size], dt.timezone.utc if zone == ext.PACKED_UTC else self._nested(zone))
            return from_bytes(data)
        if code in ext.MAKERS:
            return _made(code, self._nested(data))
        if code == ext.PICKLE:
            return self._unpickle(data)
        if code == ext.NAMED:
            return self._revive(self._nested(data))
        if code == ext.CALLABLE:
            self.find_callable(data)
            return callables.from_ref(self._nested(data), self.config)
        if code == ext.ENUM:
            return _enum_from_plain(self._nested(data), self.config.policy)
        if code in ext.REBUILDERS:
            return self._rebuild(code, self._nested(data))
        raise UnknownTypeError(f"The task has a value of the ext type {code}, which this release does not know.")

    def _unpickle(self, data: bytes) -> Any:
        if not self.config.allow_pickle:
            raise DecodeError("The task has a pickled value, and pickle is not allowed (`allow_pickle` is False).")
        return pickling.loads(data, self.config.policy)

    def _revive(self, content: Any) -> Any:
        name, plain = content
        how = named(name)
        try:
            return how.decode(plain)
        except DeferError:
            raise
        except Exception as error:
            raise UnknownTypeError(
                f"A value of the type {one_line(repr(name))} cannot be decoded: {error!r}"
            ) from error

    def _rebuild(self, code: int, plain: Any) -> Any:
        if code == ext.NDB_KEY:
            _check_library(plain[0], self.config.policy)
        try:
            return ext.REBUILDERS[code](plain)
        except (ImportError, LookupError) as error:  # a zone or a library that is not here
            raise UnknownTypeError(f"A value of the task cannot be decoded: {error!r}") from error


_latest = _Reader(Config())


def _reader(config: Config) -> _Reader:
    """Return the reader of a configuration."""
    global _latest
    latest = _latest  # another thread may change it meanwhile
    if latest.config is not config:
        latest = _latest = _Reader(config)
    return latest


def _made(code: int, members: Any) -> Any:
    if type(members) is not list:
        raise DecodeError("A tuple or set of the task is not made of a list.")
    if code != ext.TUPLE:
        _check_hashes(members)
    return ext.MAKERS[code](members)


def _may_collide(data: bytes) -> bool:
    """Return True if there may be a dict (with the head of a large one) of so many keys that are no texts: a hook for
    each pair takes time."""
    return (0xDE in data or 0xDF in data) and len(data) - len(data.translate(None, _EXT_HEADS)) > MAX_COLLIDING


def _dict(given: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    pairs = list(given)  # which msgpack without its extension gives one by one
    if len(pairs) > MAX_COLLIDING:
        _check_hashes([key for key, _ in pairs])
    return dict(pairs)


def _check_hashes(keys: list[Any]) -> None:
    """Raise DecodeError for keys that were chosen to collide."""
    if len(keys) > MAX_COLLIDING and len(keys) - len(set(map(hash, keys))) > MAX_COLLIDING:
        raise DecodeError(f"More than {MAX_COLLIDING} keys of the task share their hash with others.")


def _enum_from_plain(plain: Any, policy: Policy) -> enum.Enum:
    ref, name, *value = plain
    kind = callables.resolve_class(ref, policy)
    if not isinstance(kind, enum.EnumMeta):
        raise DecodeError(f"{one_line(ref)} is no Enum.")
    try:
        return kind(value[0]) if name is None else kind[name]
    except (KeyError, ValueError) as error:
        member = one_line(repr(value[0] if name is None else name))
        raise UnknownTypeError(f"{one_line(ref)} has no member {member} here.") from error


def _check_library(library: Any, policy: Policy) -> None:
    """Raise UnknownTypeError for a key whose library is not loaded, under an allow-list that does not name it."""
    package = ext.KEY_LIBRARIES["cloud" if library == "cloud" else "appengine"]
    if package not in sys.modules and not policy.may_import(f"{package}.Key"):
        raise UnknownTypeError(f"{package} is not loaded here, and {package}.* not among the configured `callables`.")


def _name_at(data: bytes, start: int) -> str | None:
    """Return the text that is packed at `start`; None for anything else."""
    head = data[start]
    if 0xA0 <= head < 0xC0:
        begin, size = start + 1, head & 0x1F
    elif head in (0xD9, 0xDA):
        begin = start + head - 0xD7
        size = int.from_bytes(data[start + 1 : begin], "big")
    else:
        return None
    return data[begin : begin + size].decode("utf-8", "surrogatepass")
