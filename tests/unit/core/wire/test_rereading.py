"""Values that pickle and do not unpickle are refused at `defer()`, wherever they are; a class that tells of all its
instances is tried once."""

from __future__ import annotations

import collections
import copyreg
import dataclasses
import decimal
import enum
import functools
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from defer_core import config, defer, pickling
from defer_core.errors import UnserializableError
from defer_core.task import Task
from defer_core.testing import in_memory
from defer_core.wire import encoder, registry, rereading

SETTINGS = config.Config()


def note(*args: Any, **kwargs: Any) -> None:
    pass


class Failed(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclasses.dataclass
class Holder:
    what: Any
    other: Any = None

    def method(self) -> None:
        pass

    def __call__(self) -> None:
        pass


@dataclasses.dataclass(frozen=True)
class Frozen:
    what: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    what: Any


class Row(NamedTuple):
    what: Any


class Plain:
    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


class Pair(str):
    def __new__(cls, a: str, b: str) -> Pair:
        return super().__new__(cls, a + b)


class Number(int):
    def __new__(cls, a: int, b: int) -> Number:
        return super().__new__(cls, a + b)


class Group(frozenset):  # type: ignore[type-arg]
    def __new__(cls, a: Any, b: Any) -> Group:
        return super().__new__(cls, [a, b])


class Made:
    def __new__(cls, needed: Any) -> Made:
        return super().__new__(cls)


class Proxy:
    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


class Scaled(int):
    """Reads what it has written, up to a hundred."""

    def __new__(cls, given: int) -> Scaled:
        if given > 100:
            raise ValueError("too much")
        return super().__new__(cls, given * 10)


class Reduced:
    def __init__(self, one: int, two: int) -> None:
        self.one = one

    def __reduce__(self) -> Any:
        return Reduced, (self.one,)


class AtTimes:
    """Its `__reduce__` leaves something out only where there is something."""

    def __init__(self, value: Any = None, *, more: Any = None) -> None:
        self.value, self.more = value, more

    def __reduce__(self) -> Any:
        return (AtTimes, (self.value, self.more)) if self.more else (AtTimes, (self.value,))


class Checked(dict):  # type: ignore[type-arg]
    """Its items need an attribute that pickle has not restored yet."""

    def __init__(self) -> None:
        super().__init__()
        self.limit = 5

    def __setitem__(self, key: Any, value: Any) -> None:
        if len(self) >= self.limit:
            raise ValueError("full")
        super().__setitem__(key, value)


class Node:
    """Its hash needs an attribute that is not there yet, where it is in a set of its own."""

    def __init__(self, name: str) -> None:
        self.name, self.others = name, set[Any]()

    def __hash__(self) -> int:
        return hash(self.name)


class Queue(collections.deque):  # type: ignore[type-arg]
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class Registered:
    pass


class Copied:
    def __init__(self, value: Any, more: Any) -> None:
        self.value = value


class Colour(enum.Enum):
    RED = "r"


def ring() -> Node:
    one, two = Node("one"), Node("two")
    one.others.add(two)
    two.others.add(one)
    return one


def checked() -> Checked:
    found = Checked()
    found["a"] = 1
    return found


copyreg.pickle(Copied, lambda copied: (Copied, (copied.value,)))

BAD: dict[str, Any] = {
    "exception": lambda: Failed(1, "x"),
    "str": lambda: Pair("a", "b"),
    "int": lambda: Number(1, 2),
    "frozenset": lambda: Group(1, 2),
    "new": lambda: Made(1),
    "passes on": lambda: Proxy(1),
    "reduce": lambda: Reduced(1, 2),
    "at times": lambda: AtTimes(1, more=2),
    "scaled": lambda: Scaled(50),
    "items": checked,
    "ring": ring,
    "deque": lambda: Queue("q"),
    "copyreg": lambda: Copied(1, 2),
}


@pytest.fixture(autouse=True)
def _nothing_is_known() -> Iterator[None]:
    rereading._proven.clear()
    yield
    rereading._proven.clear()


def refused(*args: Any, func: Any = note, **kwargs: Any) -> str:
    with in_memory() as queue:
        with pytest.raises(UnserializableError, match="cannot be read again") as caught:
            defer(func, *args, **kwargs)
        assert queue.queued() == []
    return caught.value.path


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_again_is_refused_with_its_path(name: str) -> None:
    make = BAD[name]
    assert refused(make()) == "args[0]"
    assert refused([{"a": (1, make())}]) == "args[0][0]['a'][1]"
    assert refused(key=make()) == "kwargs['key']"


@pytest.mark.parametrize(
    ("hold", "path"),
    [
        (Holder, "args[0].what"),
        (Frozen, "args[0].what"),
        (Slotted, "args[0].what"),
        (Row, "args[0].what"),
        (lambda value: Plain(what=value), "args[0].what"),
        (lambda value: Plain(what=[Holder(value)]), "args[0].what[0].what"),
        (lambda value: collections.OrderedDict(a=value), "args[0]['a']"),
        (lambda value: collections.defaultdict(list, a=[value]), "args[0]['a'][0]"),
        (lambda value: collections.deque([value]), "args[0][0]"),
        (lambda value: types.SimpleNamespace(what=value), "args[0].what"),
    ],
)
@pytest.mark.parametrize("name", ["exception", "str", "passes on"])
def test_what_holds_it_is_refused_though_its_class_is_known(hold: Any, path: str, name: str) -> None:
    with in_memory():
        defer(note, hold(1))
    assert refused(hold(BAD[name]())) == path


def test_it_is_found_in_partials_methods_and_callable_instances() -> None:
    bad = Failed(1, "x")
    assert refused(func=functools.partial(note, bad)).startswith("func.args[0]")
    assert refused(func=functools.partial(note, key=[bad])).startswith("func.keywords['key'][0]")
    assert refused(func=Holder(bad).method) == "func.__self__.what"
    assert refused(func=Holder(bad)) == "func.what"


@pytest.mark.parametrize("good_then_bad", [
    (AtTimes(1), AtTimes(1, more=2)),
    (Scaled(1), Scaled(50)),
    (Checked(), checked()),
    (Node("alone"), ring()),
    (ValueError("x"), Failed(1, "x")),
])  # fmt: skip
def test_one_that_can_be_read_does_not_tell_of_the_next_where_it_goes_by_its_data(good_then_bad: Any) -> None:
    good, bad = good_then_bad
    with in_memory():
        defer(note, good)
    refused(bad)


@pytest.mark.parametrize(
    "value",
    [
        Holder(1), Frozen(1), Slotted(1), Plain(a=1), Row(1), Colour.RED, range(3), Path("x"),
        collections.Counter("aab"), collections.OrderedDict(a=1), types.SimpleNamespace(a=1), collections.deque([1], 2),
        Holder(decimal.Decimal(1)),
    ],
)  # fmt: skip
def test_a_class_whose_instances_are_alike_is_tried_once(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []
    real = pickling.loads
    monkeypatch.setattr(pickling, "loads", lambda data, policy: tried.append(1) or real(data, policy))
    wrapped = Plain(value=value)
    first = encoder.pack(wrapped, SETTINGS)
    assert [encoder.pack(wrapped, SETTINGS) for _ in range(3)] == [first] * 3
    assert len(tried) == (4 if isinstance(value, Row) else 1)


def test_what_is_native_is_never_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rereading, "is_needed", lambda kinds: pytest.fail("it was tried"))
    encoder.pack_call(Task(func=note, args=([1, "a", {"b": (2.0, decimal.Decimal(1))}], Colour.RED)), SETTINGS)


def test_a_project_s_decode_is_not_called_for_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_by_class", "_by_name", "_found"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))

    def decode(plain: Any) -> Any:
        raise AssertionError("it asks a database")

    registry.register_type(Registered, "tests.registered", lambda value: 1, decode)
    with in_memory():
        defer(note, Holder(Registered(), Registered()))


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rereading, "_CACHE", 5)
    for number in range(20):
        rereading.succeeded([type(f"Kind{number}", (), {})])
    assert len(rereading._proven) <= 6
