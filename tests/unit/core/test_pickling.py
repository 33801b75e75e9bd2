"""Values that have no form of their own: pickled where that is allowed, and refused where it is not."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any, NamedTuple

import pytest

from defer_core import config
from defer_core.errors import DecodeError, UnserializableError
from defer_core.wire import decoder, encoder

NATIVE = config.Config(allow_pickle=False)
PICKLING = config.Config()


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


def there_and_back(value: Any, how: config.Config = NATIVE) -> Any:
    return decoder.unpack(encoder.pack(value, how), how)


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
        encoder.pack([value], NATIVE)


def test_a_pickled_value_is_refused_where_pickle_is_not_allowed() -> None:
    with pytest.raises(DecodeError, match="pickle"):
        decoder.unpack(encoder.pack(Plain(a=1), PICKLING), NATIVE)


def test_a_cycle_inside_one_pickled_object_is_kept() -> None:
    child = Plain(parent=Plain(children=[]))
    child.parent.children.append(child)  # type: ignore[attr-defined]
    found = there_and_back(child, PICKLING)
    assert found.parent.children == [found] and found.parent.children[0] is found
