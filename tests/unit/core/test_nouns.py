"""Nouns that cost little to make: what `fast_init` gives is the dataclass, in all that can be asked of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, field, replace
from typing import Any

import pytest

from defer_core.nouns import changed, fast_init


def as_given(cls: type) -> type:
    return cls


@pytest.fixture(params=[as_given, fast_init])
def noun(request: pytest.FixtureRequest) -> Any:
    how: Callable[[type], type] = request.param

    @how
    @dataclass(frozen=True, kw_only=True)
    class Point:
        x: int
        y: int = 2
        tags: list[str] = field(default_factory=list)

    return Point


def test_it_is_made_as_a_dataclass_is(noun: Any) -> None:
    point = noun(x=1)
    assert (point.x, point.y, point.tags) == (1, 2, [])
    assert point.tags is not noun(x=1).tags
    assert noun(x=1) == point != noun(x=3) and hash(noun(x=1, tags=())) == hash(noun(x=1, tags=()))
    assert repr(point).endswith("Point(x=1, y=2, tags=[])")
    assert replace(point, y=5) == noun(x=1, y=5)
    with pytest.raises(FrozenInstanceError):
        point.x = 3


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1,), {}), ((), {"x": 1, "z": 2})])
def test_arguments_that_do_not_fit_are_refused(noun: Any, args: Any, kwargs: Any) -> None:
    with pytest.raises(TypeError, match=r"__init__\(\)"):
        noun(*args, **kwargs)


def test_fields_may_be_positional() -> None:
    @fast_init
    @dataclass(frozen=True)
    class Pair:
        left: int
        right: int = 2

    assert Pair(1) == Pair(1, 2) == Pair(right=2, left=1)


def test_what_follows_on_making_follows() -> None:
    @fast_init
    @dataclass(frozen=True)
    class Name:
        text: str

        def __post_init__(self) -> None:
            object.__setattr__(self, "text", self.text.strip())

    assert Name(" ada ").text == "ada"


def test_a_changed_one_is_another(noun: Any) -> None:
    point = noun(x=1)
    assert changed(point, y=5) == noun(x=1, y=5) and point == noun(x=1)
    with pytest.raises(TypeError, match="no field 'z'"):
        changed(point, z=1)
