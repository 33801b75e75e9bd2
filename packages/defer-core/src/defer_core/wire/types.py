"""How the standard library's own types travel: an ext code for each, and bytes of a fixed form.

The codes and forms are permanent: once released, they are neither changed nor reused.
"""

from __future__ import annotations

import datetime as dt
import decimal
import struct
import uuid
from collections.abc import Callable
from typing import Any

from ..errors import DecodeError

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

_TIMEDELTA = struct.Struct(">iII")  # days, seconds, microseconds
_COMPLEX = struct.Struct(">dd")
_SAFETY = struct.Struct(">b")  # whether a UUID was made safely, where that is known
_UNKNOWN = uuid.SafeUUID.unknown

_new, _set = object.__new__, object.__setattr__


def _int_to_bytes(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _own_bytes(value: Any) -> bytes:
    """Return the bytes that a date, time or datetime pickles itself as. They have a fixed form, big-endian: year (2),
    month (+ 128 in a fold), day, hour, minute, second, microsecond (3); a time has the last six of these, with the fold
    in the hour; a date has the first four, without a fold."""
    data: bytes = value.__reduce_ex__(4)[1][0]
    return data


def _timedelta_to_bytes(value: dt.timedelta) -> bytes:
    return _TIMEDELTA.pack(value.days, value.seconds, value.microseconds)


def _complex_to_bytes(value: complex) -> bytes:
    return _COMPLEX.pack(value.real, value.imag)


def _uuid_to_bytes(value: uuid.UUID) -> bytes:
    data = value.int.to_bytes(16, "big")
    return data if value.is_safe is _UNKNOWN else data + _SAFETY.pack(value.is_safe.value)


FIXED: dict[type, tuple[int, Callable[[Any], bytes], bool]] = {
    uuid.UUID: (UUID, _uuid_to_bytes, False),
    decimal.Decimal: (DECIMAL, lambda value: str(value).encode(), False),
    dt.datetime: (DATETIME, _own_bytes, True),
    dt.date: (DATE, _own_bytes, False),
    dt.time: (TIME, _own_bytes, True),
    dt.timedelta: (TIMEDELTA, _timedelta_to_bytes, False),
    complex: (COMPLEX, _complex_to_bytes, False),
    int: (INT, _int_to_bytes, False),  # only those beyond 64 bits get here
    bytearray: (BYTEARRAY, bytes, False),
}
"""Types whose values are some bytes. In some of them the zone follows, itself a packed value, if there is one."""
SEQUENCES: dict[type, int] = {tuple: TUPLE, set: SET, frozenset: FROZENSET}
"""Types whose values travel as the list of their members."""
MAKERS: dict[int, Callable[[Any], Any]] = {TUPLE: tuple, SET: set, FROZENSET: frozenset}
NATIVE = frozenset({type(None), bool, int, float, str, bytes, list, dict, *FIXED, *SEQUENCES})
"""Types that cannot be registered."""
PACKED_UTC = bytes((0xC7, 1, TIMEZONE, 0x90))
"""The zone UTC as a packed value."""


def _datetime_from_bytes(data: bytes, zone: Any = None) -> dt.datetime:
    if len(data) != 10:
        raise DecodeError("A datetime of the task is too short.")
    return dt.datetime(data, zone).replace()  # type: ignore[arg-type, call-arg]  # replace() checks each field


def _time_from_bytes(data: bytes, zone: Any = None) -> dt.time:
    if len(data) != 6:
        raise DecodeError("A time of the task is too short.")
    return dt.time(data, zone).replace()  # type: ignore[arg-type]


def _date_from_bytes(data: bytes) -> dt.date:
    if len(data) != 4:
        raise DecodeError("A date of the task is not of four bytes.")
    return dt.date(data).replace()  # type: ignore[arg-type, call-arg]


def _uuid_from_bytes(data: bytes) -> uuid.UUID:
    if len(data) not in (16, 17):
        raise DecodeError("A UUID of the task is not of 16 bytes.")
    value = _new(uuid.UUID)  # its `__init__` takes any form, at twice the time
    _set(value, "int", int.from_bytes(data[:16], "big"))
    _set(value, "is_safe", _UNKNOWN if len(data) == 16 else uuid.SafeUUID(*_SAFETY.unpack(data[16:])))
    return value


def _bytes_to_complex(data: bytes) -> complex:
    return complex(*_COMPLEX.unpack(data))


def _bytes_to_timedelta(data: bytes) -> dt.timedelta:
    days, seconds, microseconds = _TIMEDELTA.unpack(data)
    if seconds >= 86400 or microseconds >= 1_000_000:
        raise DecodeError("A timedelta of the task is out of range.")
    return dt.timedelta(days, seconds, microseconds)


READERS: dict[int, tuple[Callable[..., Any], int]] = {
    UUID: (_uuid_from_bytes, 0),
    DECIMAL: (lambda data: decimal.Decimal(data.decode("ascii")), 0),
    DATETIME: (_datetime_from_bytes, 10),
    DATE: (_date_from_bytes, 0),
    TIME: (_time_from_bytes, 6),
    TIMEDELTA: (_bytes_to_timedelta, 0),
    COMPLEX: (_bytes_to_complex, 0),
    INT: (lambda data: int.from_bytes(data, "big", signed=True), 0),
    BYTEARRAY: (bytearray, 0),
}
"""From the bytes of FIXED back to values, with the length of the bytes before the zone, for those that may have one."""


def timezone_to_plain(value: dt.timezone) -> list[Any]:
    """Return the offset and, if it was given one, the name; an empty list for UTC."""
    if value is dt.timezone.utc:
        return []
    return list(value.__getinitargs__())  # type: ignore[attr-defined]


def timezone_from_plain(plain: list[Any]) -> dt.timezone:
    """Return the zone that `timezone_to_plain` was given."""
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


KEY_LIBRARIES = {"cloud": "google.cloud.ndb", "appengine": "google.appengine.ext.ndb"}
"""The library that a key needs, by what its plain form begins with."""


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
