"""Values to bytes and back: msgpack, with an ext type for what msgpack lacks, and pickle for the rest if allowed.

Exact types only: a subclass of str, int, dict and so on is never flattened into its base.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import pickle
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack

from . import callables
from .config import Config, current
from .errors import DecodeError, DeferError, UnserializableError
from .task import Task

(TUPLE, BYTEARRAY, SET, FROZENSET, DATETIME, DATE, TIME, TIMEDELTA, DECIMAL, UUID, COMPLEX, INT, ENUM, CALLABLE, NAMED,
 PICKLE) = range(1, 17)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RegisteredType:
    """How values of one class travel."""

    cls: type
    """The class; exactly this one, unless `subclasses`."""
    name: str
    """What the wire calls it; never to be changed."""
    encode: Callable[[Any], Any]
    """From a value to values that can travel."""
    decode: Callable[[Any], Any]
    """And back."""
    subclasses: bool = False
    """Whether subclasses travel in the same way."""


_by_class: dict[type, RegisteredType] = {}
_by_name: dict[str, RegisteredType] = {}


def register_type(
    cls: type,
    name: str,
    encode: Callable[[Any], Any],
    decode: Callable[[Any], Any],
    *,
    subclasses: bool = False,
) -> None:
    """Let values of `cls` travel as what `encode` makes of them, under `name`. Raises ValueError for a name taken by another."""
    known = _by_name.get(name)
    if known is not None and known.cls is not cls:
        raise ValueError(f"The type name {name!r} is taken by {known.cls!r}.")
    _by_class[cls] = _by_name[name] = RegisteredType(
        cls=cls, name=name, encode=encode, decode=decode, subclasses=subclasses
    )


def pack_call(task: Task, config: Config) -> bytes:
    """The Payload of a task."""
    ref = callables.to_ref(task.func, config)
    return pack([ref, list(task.args), dict(task.kwargs)], config)


def unpack_call(payload: bytes, config: Config) -> tuple[Callable[..., Any], list[Any], dict[str, Any]]:
    """Callable, args and kwargs of a Payload. Raises DecodeError or NotYetReadableError."""
    call = unpack(payload, config)
    match call:
        case [ref, list() as args, dict() as kwargs]:
            return callables.from_ref(ref, config), args, kwargs
    raise DecodeError("The payload of the task is no call.")


def pack(value: Any, config: Config | None = None) -> bytes:
    """The bytes of a value. Raises UnserializableError."""
    config = config or current()

    def default(obj: Any) -> Any:
        return _encode(obj, config, nested)

    def nested(obj: Any) -> bytes:
        return msgpack.packb(obj, default=default, strict_types=True, unicode_errors="surrogatepass")  # type: ignore[no-any-return]

    try:
        return nested(value)
    except DeferError:
        raise
    except Exception as error:
        raise UnserializableError(f"The arguments cannot travel: {error}", path="") from error


def _encode(obj: Any, config: Config, nested: Callable[[Any], bytes]) -> Any:
    kind = type(obj)
    registered = _by_class.get(kind) or next(
        (each for each in _by_class.values() if each.subclasses and isinstance(obj, each.cls)), None
    )
    if registered:
        return msgpack.ExtType(NAMED, nested([registered.name, registered.encode(obj)]))
    if kind in _CODES:
        code, encode = _CODES[kind]
        return msgpack.ExtType(code, nested(encode(obj)))
    if isinstance(obj, enum.Enum):
        return msgpack.ExtType(ENUM, nested([f"{kind.__module__}:{kind.__qualname__}", obj.name]))
    if callable(obj):
        return msgpack.ExtType(CALLABLE, nested(callables.to_ref(obj, config)))
    if not config.allow_pickle:
        raise UnserializableError(f"A {kind.__qualname__} cannot travel, and pickle is not allowed.", path="")
    return msgpack.ExtType(PICKLE, pickle.dumps(obj, 5))


def _encode_datetime(value: dt.datetime) -> Any:
    return pickle.dumps(value, 5)


_CODES: dict[type, tuple[int, Callable[[Any], Any]]] = {
    tuple: (TUPLE, list),
    set: (SET, list),
    frozenset: (FROZENSET, list),
    decimal.Decimal: (DECIMAL, str),
    uuid.UUID: (UUID, lambda value: value.bytes),
    dt.date: (DATE, lambda value: value.toordinal()),
    dt.timedelta: (TIMEDELTA, lambda value: [value.days, value.seconds, value.microseconds]),
    complex: (COMPLEX, lambda value: [value.real, value.imag]),
    int: (INT, hex),
}
_DECODERS: dict[int, Callable[[Any], Any]] = {
    TUPLE: tuple,
    SET: set,
    FROZENSET: frozenset,
    DECIMAL: decimal.Decimal,
    UUID: lambda value: uuid.UUID(bytes=value),
    DATE: dt.date.fromordinal,
    TIMEDELTA: lambda value: dt.timedelta(*value),
    COMPLEX: lambda value: complex(*value),
    INT: lambda value: int(value, 16),
}


def unpack(data: bytes, config: Config | None = None) -> Any:
    """The value of some bytes. Raises DecodeError, or NotYetReadableError for a type or callable that is not here."""
    config = config or current()

    def ext_hook(code: int, content: bytes) -> Any:
        if code == PICKLE:
            return pickle.loads(content)
        value = nested(content)
        if code == NAMED:
            return _by_name[value[0]].decode(value[1])
        if code == CALLABLE:
            return callables.from_ref(value, config)
        if code == ENUM:
            return callables.resolve(value[0])[value[1]]
        return _DECODERS[code](value)

    def nested(content: bytes) -> Any:
        return msgpack.unpackb(
            content, ext_hook=ext_hook, strict_map_key=False, unicode_errors="surrogatepass", use_list=True
        )

    try:
        return nested(data)
    except DeferError:
        raise
    except Exception as error:
        raise DecodeError(f"The payload cannot be read: {error!r}") from error
