"""The path to the value that cannot travel."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
from typing import Any, NamedTuple

import pytest

from defer_core import config
from defer_core.errors import UnserializableError
from defer_core.task import Task
from defer_core.wire import encoder

NATIVE = config.Config(allow_pickle=False)
PICKLING = config.Config()


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
        encoder.pack_call(Task(func=function, args=args, kwargs=kwargs), NATIVE)
    assert path in str(caught.value) and caught.value.path.startswith(path)


def test_the_path_goes_into_the_attributes_of_what_pickle_refuses() -> None:
    with pytest.raises(UnserializableError) as caught:
        encoder.pack_call(Task(func=function, kwargs={"user": Plain(avatar=(each for each in []))}), PICKLING)
    assert caught.value.path == "kwargs['user'].avatar"
