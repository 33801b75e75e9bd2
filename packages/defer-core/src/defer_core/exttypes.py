"""How the standard library's own types travel: an ext code for each, and bytes of a fixed form.

The codes and forms are for ever: a released one is neither changed nor used again.
"""

from __future__ import annotations

import datetime as dt
import decimal
import struct
import uuid
from collections.abc import Callable
from typing import Any

from .errors import DecodeError

TUPLE = 1
BYTEARRAY = 2
SET = 3
FROZENSET = 4
DATETIME = 5
DATE = 6
TIME = 7
TIMEDELTA = 8
DECIMAL = 9
UUID = 10
COMPLEX = 11
INT = 12
ENUM = 13
CALLABLE = 14
NAMED = 15
PICKLE = 16
TIMEZONE = 17
ZONEINFO = 18
NDB_KEY = 19

# year, month (+ 128 in a fold), day, hour, minute, second, microsecond (24 bits)
_DATETIME = struct.Struct(">HBBBBBBH")
_TIME = struct.Struct(">BBBBH")  # hour (+ 128 in a fold), minute, second, microsecond (24 bits)
_DATE = struct.Struct(">HBB")
_TIMEDELTA = struct.Struct(">iII")  # days, seconds, microseconds
_COMPLEX = struct.Struct(">dd")
_FOLD = 0x80

ZONED: dict[type, int] = {dt.datetime: DATETIME, dt.time: TIME}
"""Their bytes are followed by the zone, itself a packed value, where there is one;
UTC is an empty ext of its own kind."""


def _int_to_bytes(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _date_to_bytes(value: dt.date) -> bytes:
    return _DATE.pack(value.year, value.month, value.day)


def _timedelta_to_bytes(value: dt.timedelta) -> bytes:
    return _TIMEDELTA.pack(value.days, value.seconds, value.microseconds)


def _complex_to_bytes(value: complex) -> bytes:
    return _COMPLEX.pack(value.real, value.imag)


def _uuid_to_bytes(value: uuid.UUID) -> bytes:
    return value.int.to_bytes(16, "big")


LEAVES: dict[type, tuple[int, Callable[[Any], bytes]]] = {
    uuid.UUID: (UUID, _uuid_to_bytes),
    decimal.Decimal: (DECIMAL, lambda value: str(value).encode()),
    dt.date: (DATE, _date_to_bytes),
    dt.timedelta: (TIMEDELTA, _timedelta_to_bytes),
    complex: (COMPLEX, _complex_to_bytes),
    int: (INT, _int_to_bytes),  # only those beyond 64 bits get here
    bytearray: (BYTEARRAY, bytes),
}
"""Types whose values are some bytes."""
SEQUENCES: dict[type, int] = {tuple: TUPLE, set: SET, frozenset: FROZENSET}
"""Types whose values travel as the list of their members."""
MAKERS: dict[int, Callable[[Any], Any]] = {TUPLE: tuple, SET: set, FROZENSET: frozenset}


def datetime_to_bytes(value: dt.datetime) -> bytes:
    """Ten bytes; the zone is not among them."""
    fraction = value.microsecond
    month = value.month | _FOLD if value.fold else value.month
    return _DATETIME.pack(
        value.year, month, value.day, value.hour, value.minute, value.second, fraction >> 16, fraction & 0xFFFF
    )


def time_to_bytes(value: dt.time) -> bytes:
    """Six bytes; the zone is not among them."""
    fraction = value.microsecond
    hour = value.hour | _FOLD if value.fold else value.hour
    return _TIME.pack(hour, value.minute, value.second, fraction >> 16, fraction & 0xFFFF)


def zone_part(code: int, data: bytes) -> bytes:
    """What follows the fixed part of a DATETIME or a TIME."""
    return data[_DATETIME.size :] if code == DATETIME else data[_TIME.size :]


def zoned_from_bytes(code: int, data: bytes, zone: Any) -> dt.datetime | dt.time:
    """A datetime or time of its fixed part and its zone. Raises ValueError, TypeError or struct.error."""
    if code == DATETIME:
        year, month, day, hour, minute, second, high, low = _DATETIME.unpack_from(data)
        fold, fraction = month >> 7, high << 16 | low
        return dt.datetime(year, month & 0x7F, day, hour, minute, second, fraction, zone, fold=fold)
    hour, minute, second, high, low = _TIME.unpack_from(data)
    return dt.time(hour & 0x7F, minute, second, high << 16 | low, zone, fold=hour >> 7)


def _bytes_to_complex(data: bytes) -> complex:
    return complex(*_COMPLEX.unpack(data))


def _bytes_to_timedelta(data: bytes) -> dt.timedelta:
    days, seconds, microseconds = _TIMEDELTA.unpack(data)
    if seconds >= 86400 or microseconds >= 1_000_000:
        raise DecodeError("A timedelta of the task is out of range.")
    return dt.timedelta(days, seconds, microseconds)


READERS: dict[int, Callable[[bytes], Any]] = {
    UUID: lambda data: uuid.UUID(bytes=data),
    DECIMAL: lambda data: decimal.Decimal(data.decode("ascii")),
    DATE: lambda data: dt.date(*_DATE.unpack(data)),
    TIMEDELTA: _bytes_to_timedelta,
    COMPLEX: _bytes_to_complex,
    INT: lambda data: int.from_bytes(data, "big", signed=True),
    BYTEARRAY: bytearray,
}
"""From the bytes of LEAVES back to values."""


def timezone_to_plain(value: dt.timezone) -> list[Any]:
    """Offset and, where it was given one, name; nothing for UTC."""
    if value is dt.timezone.utc:
        return []
    return list(value.__getinitargs__())  # type: ignore[attr-defined]


def timezone_from_plain(plain: list[Any]) -> dt.timezone:
    """The zone again."""
    return dt.timezone(*plain) if plain else dt.timezone.utc


def _zoneinfo_to_plain(value: Any) -> str:
    if value.key is None:
        raise TypeError("a ZoneInfo that was read from a file has no key to find it by")
    return str(value.key)


def _zoneinfo_from_plain(plain: str) -> dt.tzinfo:
    import zoneinfo

    return zoneinfo.ZoneInfo(plain)


def _cloud_key_to_plain(value: Any) -> list[Any]:
    return ["cloud", value.project(), value.database(), value.namespace(), list(value.flat())]


def _appengine_key_to_plain(value: Any) -> list[Any]:
    return ["appengine", value.app(), None, value.namespace(), list(value.flat())]


def _key_from_plain(plain: list[Any]) -> Any:
    library, project, database, namespace, path = plain
    if library == "cloud":
        from google.cloud.ndb import Key

        return Key(*path, project=project, database=database, namespace=namespace)
    from google.appengine.ext.ndb import Key as AppEngineKey

    return AppEngineKey(flat=tuple(path), app=project, namespace=namespace)


BY_NAME: dict[tuple[str, str], tuple[int, Callable[[Any], Any]]] = {
    ("zoneinfo", "ZoneInfo"): (ZONEINFO, _zoneinfo_to_plain),
    ("google.cloud.ndb.key", "Key"): (NDB_KEY, _cloud_key_to_plain),
    ("google.appengine.ext.ndb.key", "Key"): (NDB_KEY, _appengine_key_to_plain),
}
"""Types of modules that are not imported for their sake, by module and name."""
REBUILDERS: dict[int, Callable[[Any], Any]] = {
    TIMEZONE: timezone_from_plain,
    ZONEINFO: _zoneinfo_from_plain,
    NDB_KEY: _key_from_plain,
}
