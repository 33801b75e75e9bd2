"""Arguments at `defer()`: what fits what is called is sent, what does not is refused there, saying what would fit."""

from __future__ import annotations

import enum
import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defer_core import Call, adefer, defer, defer_many
from defer_core.errors import OptionError
from defer_core.send import arguments
from defer_core.testing import in_memory

ran: list[Any] = []


def hello(name: str) -> None:
    ran.append(name)


def resize(path: str, /, width: int = 1, *, crop: bool, quiet: bool = False) -> None:
    ran.append((path, width, crop, quiet))


def awkward(func: Any, self: Any = 1, *args: Any, cls: Any = 2, **kwargs: Any) -> None:
    ran.append((func, self, args, cls, kwargs))


def adds_one(inner: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(inner)
    def outer(*args: Any, **kwargs: Any) -> Any:
        return inner("added", *args, **kwargs)

    return outer


def takes_one(inner: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(inner)
    def outer(_trace: str, *args: Any, **kwargs: Any) -> Any:
        return inner(*args, **kwargs)

    return outer


@adds_one
def given_one(added: str, name: str) -> None:
    ran.append((added, name))


@takes_one
def without_trace(name: str) -> None:
    ran.append(name)


def lies(*args: Any, **kwargs: Any) -> None:
    ran.append((args, kwargs))


lies.__signature__ = __import__("inspect").signature(hello)  # type: ignore[attr-defined]


class Meta(type):
    def __call__(cls, one: int, two: int) -> Any:
        return super().__call__()


class Made(metaclass=Meta):
    pass


class Bare:
    pass


class Number(int):
    def __new__(cls, text: str, base: int = 10) -> Number:
        return super().__new__(cls, text, base)


class Failed(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)


class Shop:
    def __init__(self, name: str, city: str = "") -> None:
        ran.append((name, city))

    def open(self, hour: int) -> None:
        ran.append(hour)

    @classmethod
    def of(cls, name: str) -> None:
        ran.append(name)

    @staticmethod
    def count(number: int) -> None:
        ran.append(number)

    def __call__(self, guest: str) -> None:
        ran.append(guest)

    half = functools.partialmethod(open, 12)


class StaticCall:
    @staticmethod
    def __call__(one: int) -> None:
        ran.append(one)


class ClassCall:
    @classmethod
    def __call__(cls, one: int) -> None:
        ran.append(one)


class Grade(enum.Enum):
    GOOD = 1


shop = Shop("s")
FITS: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    (hello, ("x",), {}),
    (hello, (), {"name": "x"}),
    (resize, ("p",), {"crop": True}),
    (resize, ("p", 2), {"crop": True, "quiet": True}),
    (awkward, (1,), {}),
    (awkward, (), {"func": 1, "self": 2, "cls": 3, "args": 4, "kwargs": 5}),
    (awkward, (1, 2, 3, 4), {"cls": 3, "other": 5}),
    (given_one, ("x",), {}),
    (without_trace, (), {"_trace": "t", "name": "x"}),
    (lies, (1, 2, 3), {"any": 4}),
    (shop.open, (9,), {}),
    (Shop.open, (shop, 9), {}),
    (Shop.of, ("x",), {}),
    (Shop.count, (1,), {}),
    (Shop, ("x",), {"city": "y"}),
    (shop, ("x",), {}),
    (shop.half, (), {}),
    (StaticCall(), (1,), {}),
    (ClassCall(), (1,), {}),
    (Made, (1, 2), {}),
    (Bare, (), {}),
    (Number, ("11",), {"base": 2}),
    (Failed, (1, "x"), {}),
    (Grade, (1,), {}),
    (functools.partial(hello, "x"), (), {}),
    (functools.partial(resize, crop=True), ("p",), {"crop": False}),
    (functools.partial(shop.open, 9), (), {}),
    (functools.partial(functools.partial(resize, "p"), crop=True), (), {}),
    (max, (1, 2), {}),
    (dict, (), {"a": 1}),
    (math.sqrt, (4,), {}),
    (operator.add, (1, 2), {}),
    (str.upper, ("x",), {}),
    ("x".join, (["a"],), {}),
    (int, ("11",), {"base": 2}),
    (object, (), {}),
]
DOES_NOT: list[tuple[Any, tuple[Any, ...], dict[str, Any], str]] = [
    (hello, (), {}, r"test_arguments:hello\(name\).*'name'"),
    (hello, ("x", "y"), {}, "too many positional"),
    (hello, ("x",), {"name": "y"}, "multiple values.*'name'"),
    (hello, ("x",), {"countdown": 5}, "'countdown'; did you mean '_countdown'"),
    (hello, ("x",), {"_countdwon": 5}, "did you mean '_countdown'"),
    (hello, ("x",), {"_delay": 5}, "did you mean '_countdown'"),
    (hello, ("x",), {"_in": 5}, "did you mean '_countdown'"),
    (hello, ("x",), {"after": 5}, "did you mean '_countdown'"),
    (hello, ("x",), {"_at": 5}, "did you mean '_eta'"),
    (hello, ("x",), {"when": 5}, "did you mean '_eta'"),
    (hello, ("x",), {"queue": "mail"}, "did you mean '_queue'"),
    (hello, (), {"nam": "x"}, "name"),
    (resize, ("p",), {"crop": True, "widht": 5}, "did you mean 'width'"),
    (resize, ("p",), {}, "'crop'"),
    (resize, (), {"path": "p", "crop": True}, "path"),
    (awkward, (), {}, "'func'"),
    (awkward, (1,), {"func": 1}, "multiple values"),
    (without_trace, ("x",), {"_trace": "y"}, "multiple values"),
    (shop.open, (), {}, r"Shop.open\(hour\)"),
    (shop.open, (1, 2), {}, "too many"),
    (Shop.open, (9,), {}, "'hour'"),
    (Shop.of, (), {}, r"\(name\)"),
    (Shop.count, (), {}, "'number'"),
    (Shop, (), {}, r"Shop\(name, city=''\)"),
    (shop, (), {}, r"Shop\(guest\)"),
    (shop.half, (1,), {}, "too many"),
    (StaticCall(), (), {}, "'one'"),
    (ClassCall(), (), {}, "'one'"),
    (Made, (), {}, r"Made\(one, two\)"),
    (Bare, (1,), {}, "too many"),
    (Number, (), {}, "'text'"),
    (Failed, (1,), {}, "'text'"),
    (functools.partial(hello, "x"), ("y",), {}, "too many"),
    (functools.partial(hello, nam="x"), ("y",), {}, "did you mean 'name'"),
    (functools.partial(shop.open, 9), (10,), {}, "too many"),
    (operator.add, (1,), {}, r"add\(a, b, /\)"),
    (len, (), {}, "'obj'"),
]


@pytest.mark.parametrize(("func", "args", "kwargs"), FITS)
def test_what_fits_is_sent(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    func(*args, **kwargs)
    with in_memory() as queue:
        defer(func, *args, **kwargs)
        defer_many(func, [Call(args, kwargs)])
        assert len(queue.queued()) == 2


@pytest.mark.parametrize(("func", "args", "kwargs", "says"), DOES_NOT)
def test_what_does_not_fit_is_refused_saying_what_would(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], says: str
) -> None:
    with pytest.raises(TypeError):
        func(*args, **kwargs)
    with in_memory() as queue:
        with pytest.raises(OptionError, match=says):
            defer(func, *args, **kwargs)
        with pytest.raises(OptionError, match=says) as caught:
            defer_many(func, [Call(args, kwargs)])
        assert "call 0" in caught.value.__notes__[0]
        assert queue.queued() == []


def test_one_bad_call_of_many_refuses_all() -> None:
    with in_memory() as queue:
        with pytest.raises(OptionError, match="hello") as caught:
            defer_many(hello, [("a",), {"name": "b"}, ()])
        assert "call 2" in caught.value.__notes__[0]
        assert queue.queued() == []


async def _sent_by_a_coroutine() -> None:
    await adefer(hello)


def test_adefer_refuses_as_defer_does() -> None:
    import asyncio

    with in_memory(), pytest.raises(OptionError, match="hello"):
        asyncio.run(_sent_by_a_coroutine())


def test_an_unknown_option_of_many_names_the_nearest() -> None:
    with in_memory(), pytest.raises(OptionError, match="did you mean '_queue'"):
        defer_many(hello, [("a",)], _quue="mail")


@st.composite
def functions(draw: st.DrawFn) -> Callable[..., Any]:
    """A function of any signature over the names a to f."""
    names = list("abcdef")
    by_position, plain, only = (draw(st.integers(0, 2)) for _ in range(3))
    optional = draw(st.integers(0, by_position + plain))
    parts = [names.pop(0) for _ in range(by_position + plain)]
    parts = [f"{each}=0" if at >= len(parts) - optional else each for at, each in enumerate(parts)]
    if by_position:
        parts.insert(by_position, "/")
    star = draw(st.booleans())
    if star or only:
        parts.append("*args" if star else "*")
    parts += [f"{names.pop(0)}{draw(st.sampled_from(['', '=0']))}" for _ in range(only)]
    if draw(st.booleans()):
        parts.append("**kwargs")
    scope: dict[str, Any] = {}
    exec(f"def made({', '.join(parts)}): pass", scope)
    return scope["made"]  # type: ignore[no-any-return]


def _wrapped(func: Callable[..., Any], how: str) -> Callable[..., Any]:
    if how == "method":
        return type("Holder", (), {"method": func})().method  # type: ignore[no-any-return]
    if how == "init":
        return type("Holder", (), {"__init__": func})
    if how == "instance":
        return type("Holder", (), {"__call__": func})()  # type: ignore[no-any-return]
    if how == "partial":
        return functools.partial(func, 1, b=2)
    return adds_one(func) if how == "adds one" else takes_one(func) if how == "takes one" else func


HOW = ("plain", "method", "init", "instance", "partial", "adds one", "takes one")


@settings(max_examples=2000, deadline=None)
@given(
    functions(),
    st.sampled_from(HOW),
    st.integers(0, 5).map(lambda number: (0,) * number),
    st.dictionaries(st.sampled_from([*"abcdefg", "_trace"]), st.just(0), max_size=4),
)
def test_what_runs_is_accepted_and_what_cannot_be_called_is_refused(
    func: Callable[..., Any], how: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    target = _wrapped(func, how)
    try:
        target(*args, **kwargs)
        runs = True
    except TypeError:
        runs = False
    try:
        arguments.check(target, args, kwargs)
        accepted = True
    except OptionError:
        accepted = False
    assert accepted if runs else True
    if how not in ("adds one", "takes one"):  # there, it is the wrapper that is asked
        assert accepted is runs
