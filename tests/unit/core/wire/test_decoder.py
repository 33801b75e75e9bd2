"""Payloads that none of our releases has written: refused for good, or (what a later release may know) not readable
yet; and none of them becomes another value."""

from __future__ import annotations

import enum
from typing import Any

import msgpack
import pytest

from defer_core import config
from defer_core.errors import (
    CallableNotFoundError,
    DecodeError,
    NotYetReadableError,
    UnknownTypeError,
)
from defer_core.wire import decoder
from defer_core.wire import types as ext


class Color(enum.Enum):
    RED = 1


def read(payload: Any) -> Any:
    return decoder.unpack_call(msgpack.packb(payload), config.Config())


def value(code: int, data: bytes) -> Any:
    return ["builtins:print", [msgpack.ExtType(code, data)], {}]


def plain(code: int, content: Any) -> Any:
    return value(code, msgpack.packb(content))


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        ["builtins:print", []],
        ["builtins:print", [], [], {}],
        ["builtins:print", {}, {}],
        ["builtins:print", [], []],
        {"builtins:print": 1, "a": 2, "b": 3},
        [5, [], {}],
        [["method", 5], [], {}],
        [["method", 5, 5], [], {}],
        [["partial", "builtins:print", 5, {}], [], {}],
        [["partial", "builtins:print", [], []], [], {}],
        [["instance", 5], [], {}],
        [["instance", msgpack.ExtType(ext.CALLABLE, msgpack.packb("builtins:print"))], [], {}],
        ["math:pi", [], {}],
        plain(ext.CALLABLE, 5),
        plain(ext.CALLABLE, "math:pi"),
        plain(ext.TUPLE, {}),
        plain(ext.SET, 5),
        plain(ext.FROZENSET, "text"),
        value(ext.TUPLE, b""),
        value(ext.DATETIME, b"\x07\xe0"),
        value(ext.DATETIME, bytes(10)),
        value(ext.DATETIME, b"\x07\xe0\x02\x1e" + bytes(6)),
        plain(ext.DATETIME, "2026-01-01 00"),
        value(ext.DATE, b"\x07\xe0\x02"),
        value(ext.DATE, b"\x07\xe0\x02\x1d\x00"),
        value(ext.DATE, b"\x07\xe0\x02\x1e"),
        value(ext.TIME, b"\x18" + bytes(5)),
        value(ext.TIME, bytes(5)),
        value(ext.TIMEDELTA, ext._TIMEDELTA.pack(0, 86400, 0)),
        value(ext.TIMEDELTA, ext._TIMEDELTA.pack(0, 0, 1_000_000)),
        value(ext.TIMEDELTA, bytes(11)),
        value(ext.DECIMAL, b"a number"),
        value(ext.DECIMAL, "٣".encode()),
        value(ext.UUID, bytes(15)),
        value(ext.UUID, bytes(18)),
        value(ext.UUID, bytes(16) + b"\x05"),
        value(ext.COMPLEX, bytes(8)),
        plain(ext.ENUM, ["math:pi", "RED"]),
        plain(ext.ENUM, 5),
        plain(ext.TIMEZONE, ["an hour"]),
        plain(ext.NDB_KEY, []),
        plain(ext.NAMED, []),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_for_good(payload: Any) -> None:
    with pytest.raises(DecodeError):
        read(payload)


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (value(99, b""), UnknownTypeError),
        (plain(ext.NAMED, ["a type of tomorrow", 1]), UnknownTypeError),
        (plain(ext.ENUM, [f"{__name__}:Color", "BLUE"]), UnknownTypeError),
        (plain(ext.ENUM, [f"{__name__}:Color", None, 2]), UnknownTypeError),
        (plain(ext.ENUM, [f"{__name__}:Shape", "ROUND"]), CallableNotFoundError),
        (plain(ext.ZONEINFO, "Europe/Atlantis"), UnknownTypeError),
        (["shop.of.tomorrow:ship", [], {}], CallableNotFoundError),
        ([f"{__name__}:Color.mix", [], {}], CallableNotFoundError),
        ([["method", 5, "of_tomorrow"], [], {}], CallableNotFoundError),
        (["print", [], {}], CallableNotFoundError),
    ],
)
def test_what_a_later_release_may_know_is_not_readable_yet(payload: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        read(payload)
    assert isinstance(caught.value, NotYetReadableError)


NATIVE = config.Config(allow_pickle=False)


@pytest.mark.parametrize("levels", [200, 10_000])
def test_a_payload_of_many_levels_is_refused_and_nothing_overflows(levels: int) -> None:
    import msgpack

    data = b""
    for _ in range(levels):
        data = msgpack.packb(msgpack.ExtType(1, b"\x91" + data if data else b"\x90"))
        if len(data) > 2_000_000:
            break
    with pytest.raises(DecodeError):
        decoder.unpack(data, NATIVE)
    with pytest.raises(DecodeError):
        decoder.unpack(b"\x91" * levels + b"\xc0", NATIVE) if levels > 1000 else decoder.unpack(data, NATIVE)


def test_much_in_many_levels_is_refused_before_it_takes_all_memory() -> None:
    import tracemalloc

    import msgpack

    data = msgpack.packb(bytes(3_000_000))
    for _ in range(decoder.MAX_LEVELS - 1):
        data = msgpack.packb(msgpack.ExtType(1, b"\x91" + data))
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match="memory"):
            decoder.unpack(data, NATIVE)
        assert tracemalloc.get_traced_memory()[1] < 4 * decoder.MAX_HELD  # msgpack in Python copies more
    finally:
        tracemalloc.stop()
