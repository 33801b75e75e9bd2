"""Values on the wire: what goes in comes out, of the exact type; what cannot travel is refused with its path."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import io
import math
import pickle
import struct
import uuid
import zoneinfo
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defer_core import codec, config, reading
from defer_core.errors import DecodeError, UnserializableError
from defer_core.task import Task

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
    return codec.unpack(codec.pack(value, how), how)


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


@pytest.mark.parametrize(
    "value",
    [
        Text("t"),
        Number(3),
        Mapping(a=1),
        Point(1, 2),
        Card("c", [1]),
        collections.OrderedDict([("b", 1), ("a", 2)]),
        collections.defaultdict(list, a=[1]),
        collections.Counter("aab"),
        collections.deque([1, 2], 3),
        range(1, 10, 3),
        Plain(a=[1]),
        ValueError("v", 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_form_of_its_own_is_pickled_or_refused(value: Any) -> None:
    found = there_and_back(value, PICKLING)
    assert type(found) is type(value)
    assert found.args == value.args if isinstance(value, Exception) else found == value
    with pytest.raises(UnserializableError, match="pickle is not allowed"):
        codec.pack([value], NATIVE)


def test_without_pickle_not_one_call_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("pickle was called")

    for name in ("dumps", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr("defer_core.pickling.dumps", refuse)
    monkeypatch.setattr("defer_core.pickling.loads", refuse)
    value = [bytearray(b"x"), {1, 2}, Colour.RED, decimal.Decimal(1), function, dt.datetime(2026, 1, 1), 2**70]
    assert there_and_back(value) == value


def test_a_pickled_value_is_refused_where_pickle_is_not_allowed() -> None:
    with pytest.raises(DecodeError, match="pickle"):
        codec.unpack(codec.pack(Plain(a=1), PICKLING), NATIVE)


@pytest.mark.parametrize(
    ("args", "kwargs", "path"),
    [
        ((1, object()), {}, "args[1]"),
        ((), {"user": Plain(avatar=1)}, "kwargs['user']"),
        (([{"a": [object()]}],), {}, "args[0][0]['a'][0]"),
        (({1: (2, {object()})},), {}, "args[0][1][1]"),
        (([dt.datetime(2024, 1, 1, tzinfo=Zone())],), {}, "args[0][0].tzinfo"),
        ((Point(1, object()),), {}, "args[0].y"),  # type: ignore[arg-type]
        ((Card("x", [object()]),), {}, "args[0].values[0]"),  # type: ignore[list-item]
        ((collections.OrderedDict(a=[1, object()]),), {}, "args[0]['a'][1]"),
        ((collections.defaultdict(lambda: 0),), {}, "args[0].default_factory"),
        ((collections.deque([object()]),), {}, "args[0][0]"),
        ((ValueError("x", object()),), {}, "args[0].args[1]"),
        ((Mapping(a=object()),), {}, "args[0]['a']"),
    ],
)
def test_a_refusal_names_the_path(args: tuple[Any, ...], kwargs: dict[str, Any], path: str) -> None:
    with pytest.raises(UnserializableError) as caught:
        codec.pack_call(Task(func=function, args=args, kwargs=kwargs), NATIVE)
    assert path in str(caught.value) and caught.value.path.startswith(path)


def test_the_path_goes_into_the_attributes_of_what_pickle_refuses() -> None:
    with pytest.raises(UnserializableError) as caught:
        codec.pack_call(Task(func=function, kwargs={"user": Plain(avatar=(each for each in []))}), PICKLING)
    assert caught.value.path == "kwargs['user'].avatar"


@pytest.mark.parametrize("how", [NATIVE, PICKLING], ids=["native", "pickling"])
def test_cycles_are_refused(how: config.Config) -> None:
    inner: list[Any] = []
    inner.append((inner,))
    flat: dict[str, Any] = {}
    flat["self"] = flat
    for value in (inner, flat):
        with pytest.raises(UnserializableError, match=r"itself|deep"):
            codec.pack_call(Task(func=function, args=(value,)), how)


def test_a_cycle_inside_one_pickled_object_is_kept() -> None:
    child = Plain(parent=Plain(children=[]))
    child.parent.children.append(child)  # type: ignore[attr-defined]
    found = there_and_back(child, PICKLING)
    assert found.parent.children == [found] and found.parent.children[0] is found


@pytest.mark.parametrize("levels", [200, 10_000])
def test_a_payload_of_many_levels_is_refused_and_nothing_overflows(levels: int) -> None:
    import msgpack

    data = b""
    for _ in range(levels):
        data = msgpack.packb(msgpack.ExtType(1, b"\x91" + data if data else b"\x90"))
        if len(data) > 2_000_000:
            break
    with pytest.raises(DecodeError):
        codec.unpack(data, NATIVE)
    with pytest.raises(DecodeError):
        codec.unpack(b"\x91" * levels + b"\xc0", NATIVE) if levels > 1000 else codec.unpack(data, NATIVE)


def test_much_in_many_levels_is_refused_before_it_takes_all_memory() -> None:
    import tracemalloc

    import msgpack

    data = msgpack.packb(bytes(3_000_000))
    for _ in range(reading.MAX_LEVELS - 1):
        data = msgpack.packb(msgpack.ExtType(1, b"\x91" + data))
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError, match="memory"):
            codec.unpack(data, NATIVE)
        assert tracemalloc.get_traced_memory()[1] < 4 * reading.MAX_HELD  # msgpack in Python copies more
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("safety", uuid.SafeUUID)
def test_a_uuid_keeps_how_safely_it_was_made(safety: uuid.SafeUUID) -> None:
    value = uuid.UUID(int=7, is_safe=safety)
    arrived = codec.unpack(codec.pack(value, NATIVE), NATIVE)
    assert (arrived, arrived.is_safe) == (value, safety)


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
            codec.pack_call(Task(func=function, args=(["x" * before, value],)), NATIVE)


def test_what_lies_too_deep_is_refused() -> None:
    value: Any = ()
    for _ in range(reading.MAX_LEVELS - 1):
        value = (value,)
    assert there_and_back(value) == value
    with pytest.raises(UnserializableError, match="levels deep"):
        codec.pack(((value,),), NATIVE)


def test_a_zone_that_was_read_from_a_file_has_no_name_to_travel_by() -> None:
    file = b"TZif" + bytes(16) + struct.pack(">6I", 0, 0, 0, 0, 1, 4) + bytes(6) + b"UTC\0"
    zone = zoneinfo.ZoneInfo.from_file(io.BytesIO(file))
    with pytest.raises(UnserializableError, match="no key to find it by"):
        codec.pack(dt.datetime(2026, 1, 1, tzinfo=zone), NATIVE)


def test_the_callers_values_are_left_alone() -> None:
    value = {"a": [bytearray(b"x"), (1, {2})]}
    before = repr(value)
    there_and_back(value)
    assert repr(value) == before
