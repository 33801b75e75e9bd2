"""Types that packages and users register: alone, inside pickles, in cycles, and what cannot be registered."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
from collections.abc import Iterator
from typing import Any

import pytest

from defer_core import config, register_type
from defer_core.errors import CallableForbiddenError, UnserializableError
from defer_core.wire import decoder, encoder, registry

NATIVE = config.Config(allow_pickle=False)
PICKLING = config.Config()


class Parcel:
    """Travels as what is in it, and cannot be pickled."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def __eq__(self, other: object) -> bool:
        return type(other) is Parcel and self.content == other.content

    def __hash__(self) -> int:
        return 1

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a parcel is not pickled")


class Letter(Parcel):
    pass


@dataclasses.dataclass
class Shelf:
    """Has no form of its own, so it is pickled."""

    things: list[Any]


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    before = dict(registry._by_class), dict(registry._by_name)
    register_type(Parcel, "test.parcel", lambda parcel: [parcel.content], lambda plain: Parcel(plain[0]))
    yield
    registry._by_class, registry._by_name = before
    registry._found.clear()


def there_and_back(value: Any, how: config.Config = PICKLING) -> Any:
    return decoder.unpack(encoder.pack(value, how), how)


@pytest.mark.parametrize("value", [Parcel(1), {Parcel((1,)): [Parcel({2})]}, {Parcel(Parcel(b"x"))}])
def test_a_registered_type_travels_without_pickle(value: Any) -> None:
    assert there_and_back(value, NATIVE) == value


@pytest.mark.parametrize("value", [Shelf([Parcel(1)]), Shelf([Parcel(Shelf([Parcel((2,))]))])])
def test_a_registered_type_travels_inside_a_pickle_as_registered(value: Any) -> None:
    assert there_and_back(value) == value


def test_inside_one_pickle_a_registered_value_stays_one_object() -> None:
    parcel = Parcel("x")
    found = there_and_back(Shelf([parcel, parcel]))
    assert found.things[0] is found.things[1]


def test_only_the_very_class_travels_so() -> None:
    with pytest.raises(UnserializableError, match="register_type"):
        encoder.pack(Letter(1), NATIVE)


@pytest.mark.parametrize("how", [NATIVE, PICKLING], ids=["native", "pickling"])
def test_a_registered_value_that_contains_itself_is_refused(how: config.Config) -> None:
    direct, inside = Parcel(None), Parcel(None)
    direct.content, inside.content = direct, [{"key": (inside,)}]
    for value in (direct, inside):
        with pytest.raises(UnserializableError, match="itself"):
            encoder.pack(value, how)


def test_a_cycle_of_registered_values_inside_a_pickle_is_refused() -> None:
    inside = Parcel(None)
    inside.content = [inside]
    with pytest.raises(UnserializableError, match="itself"):
        encoder.pack(Shelf([inside]), PICKLING)


def test_what_a_registered_type_makes_of_a_value_is_checked_like_any_other() -> None:
    with pytest.raises(UnserializableError, match="lambda") as refused:
        encoder.pack({"a": Parcel(lambda: None)}, PICKLING)
    assert refused.value.path == "['a']"
    for value in (Parcel(os.system), Shelf([Parcel(os.system)])):
        with pytest.raises(CallableForbiddenError, match="system"):
            encoder.pack(value, PICKLING)


@pytest.mark.parametrize("given", [(1, "n", repr, repr), (Letter, "", repr, repr), (Letter, 2, repr, repr)])
def test_what_is_no_class_or_name_cannot_be_registered(given: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError, match="a class, a name and two functions"):
        register_type(*given)


def test_encode_and_decode_are_functions() -> None:
    for given in ((None, repr), (repr, None)):
        with pytest.raises(TypeError, match="two functions"):
            register_type(Letter, "test.letter", *given)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [str, int, dict, list, tuple, set, bytes, bool, dt.datetime])
def test_a_type_with_a_form_of_its_own_cannot_be_registered(kind: type[Any]) -> None:
    with pytest.raises(ValueError, match="built-in form"):
        register_type(kind, "test.other", repr, kind)


def test_a_name_belongs_to_one_class() -> None:
    with pytest.raises(ValueError, match=r"test\.parcel.*taken"):
        register_type(Letter, "test.parcel", repr, Letter)
