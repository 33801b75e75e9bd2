"""Values on the wire: what goes in comes out, of the exact type; what cannot travel is refused with its path."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import functools
import math
import pickle
import zoneinfo
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defer_core import config
from defer_core.errors import UnserializableError
from defer_core.task import Task
from defer_core.wire import decoder, encoder

NATIVE = config.Config(allow_pickle=False)
PICKLING = config.Config()


class Colour(enum.Enum):
    RED = "r"
    GREEN = "g"


class Bits(enum.IntFlag):
    A = 1
    B = 2


class Text(str):
    pass


class Number(int):
    pass


class Mapping(dict):  # type: ignore[type-arg]
    pass


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Card:
    name: str
    values: list[int]


class Plain:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def __eq__(self, other: object) -> bool:
        return type(other) is Plain and self.__dict__ == other.__dict__

    def method(self) -> None:
        pass


class Zone(dt.tzinfo):
    def utcoffset(self, when: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(hours=2)


def function() -> None:
    pass


def there_and_back(value: Any, how: config.Config = NATIVE) -> Any:
    return decoder.unpack(encoder.pack(value, how), how)


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types all the way down; NaN is NaN, and the sign of zero counts."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    if isinstance(one, complex):
        return same(one.real, other.real) and same(one.imag, other.imag)
    if isinstance(one, decimal.Decimal):
        return one.as_tuple() == other.as_tuple()
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return len(one) == len(other) and all(map(same, one.items(), other.items()))
    if isinstance(one, dt.datetime | dt.time):
        zones = repr(one.tzinfo) == repr(other.tzinfo)
        return one.replace(tzinfo=None) == other.replace(tzinfo=None) and one.fold == other.fold and zones
    return bool(one == other)


ZONES = st.one_of(
    st.none(),
    st.just(dt.timezone.utc),
    st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)).map(dt.timezone),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kathmandu"]).map(zoneinfo.ZoneInfo),
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(codec=None)),
    st.binary(),
    st.binary().map(bytearray),
    st.complex_numbers(),
    st.decimals(),
    st.uuids(),
    st.dates(),
    st.timedeltas(),
    st.datetimes(timezones=ZONES, allow_imaginary=True),
    st.times(timezones=st.one_of(st.none(), st.just(dt.timezone.utc))),
    st.sampled_from([*Colour, *Bits, Bits.A | Bits.B]),
    st.sampled_from([function, len, dict, Plain, str.upper, dict.fromkeys]),
)
KEYS = st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.binary(), st.tuples(st.integers(), st.text()))
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.dictionaries(KEYS, inner),
        st.frozensets(KEYS),
        st.sets(KEYS),
    ),
    max_leaves=20,
)


@settings(max_examples=400, deadline=None)
@given(VALUES)
def test_every_value_comes_back_exactly_and_without_pickle(value: Any) -> None:
    assert same(there_and_back(value), value)


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        -0.0,
        "\ud800",
        2**64,
        -(2**63) - 1,
        10**400,
        decimal.Decimal("sNaN123"),
        decimal.Decimal("-0E+7"),
        decimal.Decimal("-Infinity"),
        dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
        dt.time(2, 30, fold=1),
        dt.timezone(dt.timedelta(hours=1), "X"),
        bytearray(b"\x00"),
        {(1, "a"): {frozenset({2})}},
        {1: "int", "1": "str"},
        [True, 1, 1.0],
        functools.partial(function, *[]),
        len,
    ],
)
def test_the_awkward_ones(value: Any) -> None:
    found = there_and_back(value)
    if isinstance(value, functools.partial):
        assert (found.func, found.args, found.keywords) == (value.func, value.args, value.keywords)
    else:
        assert same(found, value)


def test_without_pickle_not_one_call_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("pickle was called")

    for name in ("dumps", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr("defer_core.pickling.dumps", refuse)
    monkeypatch.setattr("defer_core.pickling.loads", refuse)
    value = [bytearray(b"x"), {1, 2}, Colour.RED, decimal.Decimal(1), function, dt.datetime(2026, 1, 1), 2**70]
    assert there_and_back(value) == value


@pytest.mark.parametrize("how", [NATIVE, PICKLING], ids=["native", "pickling"])
def test_cycles_are_refused(how: config.Config) -> None:
    inner: list[Any] = []
    inner.append((inner,))
    flat: dict[str, Any] = {}
    flat["self"] = flat
    for value in (inner, flat):
        with pytest.raises(UnserializableError, match=r"itself|deep"):
            encoder.pack_call(Task(func=function, args=(value,)), how)


def test_what_msgpack_has_types_for_is_not_taken_for_ours() -> None:
    import msgpack

    for value in (msgpack.ExtType(1, b"\x90"), memoryview(b"x"), msgpack.Timestamp(1)):
        try:
            found = there_and_back(value)
        except UnserializableError:
            continue
        assert type(found) is type(value) and found == value


@pytest.mark.parametrize("before", [0, 5000])
@pytest.mark.parametrize("size", [0, 1, 300, 70_000])
def test_a_bytearray_stays_one_wherever_it_lies_and_however_long_it_is(before: int, size: int) -> None:
    value = ["x" * before, {"a": [bytearray(size), bytes(size)]}, bytearray(size)]
    found = there_and_back(value)
    assert found == value
    assert [type(each) for each in (*found[1]["a"], found[2])] == [bytearray, bytes, bytearray]


@pytest.mark.parametrize("before", [0, 5000])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 8, 16, 300, 70_000])
def test_what_msgpack_would_pack_as_its_own_is_refused_without_pickle(before: int, size: int) -> None:
    import msgpack

    for value in (msgpack.ExtType(1, bytes(size)), memoryview(bytes(size)), msgpack.Timestamp(2**40 * (size == 300))):
        with pytest.raises(UnserializableError, match=r"args\[0\]\[1\]"):
            encoder.pack_call(Task(func=function, args=(["x" * before, value],)), NATIVE)


def test_what_lies_too_deep_is_refused() -> None:
    value: Any = ()
    for _ in range(decoder.MAX_LEVELS - 1):
        value = (value,)
    assert there_and_back(value) == value
    with pytest.raises(UnserializableError, match="levels deep"):
        encoder.pack(((value,),), NATIVE)


def test_the_callers_values_are_left_alone() -> None:
    value = {"a": [bytearray(b"x"), (1, {2})]}
    before = repr(value)
    there_and_back(value)
    assert repr(value) == before
