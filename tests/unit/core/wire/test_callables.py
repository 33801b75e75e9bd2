"""Callables on the wire: what can be found again travels, and the rest is refused at `defer()`, saying why."""

from __future__ import annotations

import functools
import math
import operator
import os
import subprocess
import types
from typing import Any
from unittest import mock

import pytest

from defer_core import config, defer
from defer_core.errors import CallableError, CallableForbiddenError, CallableNotFoundError, DecodeError
from defer_core.task import Task
from defer_core.testing import drain, in_memory
from defer_core.wire import callables, decoder, encoder

calls: list[Any] = []


def note(*args: Any, **kwargs: Any) -> None:
    calls.append((args, kwargs))


class Base:
    def __init__(self, name: str = "") -> None:
        self.name = name

    def method(self, *args: Any) -> None:
        calls.append((self.name, args))

    def __private(self) -> None:
        calls.append("private")

    def private(self) -> Any:
        return self.__private

    @classmethod
    def of_class(cls) -> None:
        calls.append(cls.__name__)

    @staticmethod
    def static(*args: Any) -> None:
        calls.append(("static", args))

    def __call__(self, *args: Any) -> None:
        calls.append(("called", self.name, args))

    partial = functools.partialmethod(method, 1)


class Sub(Base):
    class Inner:
        @staticmethod
        def deep() -> None:
            calls.append("deep")


lambda_ = lambda: None  # noqa: E731


def replaced() -> None:
    pass


original, replaced = replaced, note  # type: ignore[assignment]


def generator() -> Any:
    yield


class WithCall(Base):
    def call(self) -> None:
        pass


async def async_generator() -> Any:
    yield


class GeneratorCall:
    def __call__(self) -> Any:
        yield

    def method(self) -> Any:
        yield


@pytest.mark.parametrize(
    ("func", "args", "expected"),
    [
        (note, (1,), ((1,), {})),
        (Base("n").method, (1,), ("n", (1,))),
        (Base.of_class, (), "Base"),
        (Sub.of_class, (), "Sub"),
        (Sub.static, (1,), ("static", (1,))),
        (Sub.Inner.deep, (), "deep"),
        (Base("c"), (1,), ("called", "c", (1,))),
        (WithCall("c"), (1,), ("called", "c", (1,))),
        (functools.partial(note, 1, key=2), (3,), ((1, 3), {"key": 2})),
        (functools.partial(functools.partial(Base("p").method, 1), 2), (3,), ("p", (1, 2, 3))),
        (Base("p").partial, (2,), ("p", (1, 2))),
    ],
)
def test_callables_travel_and_run(func: Any, args: tuple[Any, ...], expected: Any) -> None:
    calls.clear()
    with in_memory():
        defer(func, *args)
        drain()
    assert calls == [expected]


@pytest.mark.parametrize(
    "func",
    [
        len,
        math.sqrt,
        operator.add,
        str.upper,
        str.maketrans,
        dict.fromkeys,
        "text".upper,
        [3].append,
        Base,
        dict,
        {"a": 1}.get,
        Base.method,
    ],
)
def test_built_ins_and_their_methods_travel(func: Any) -> None:
    settings = config.Config()
    found, _, _ = decoder.unpack_call(encoder.pack_call(Task(func=func), settings), settings)
    assert found == func or getattr(found, "__self__", None) == func.__self__


@pytest.mark.parametrize(
    ("func", "why"),
    [
        (lambda: None, "lambda"),
        (lambda_, "lambda"),
        (original, "does not lead back"),
        (generator, "generator"),
        (async_generator, "generator"),
        (GeneratorCall(), "generator"),
        (functools.partial(GeneratorCall().method), "generator"),
        (functools.partial(lambda: None), "lambda"),
        (functools.update_wrapper(functools.partial(note), note), "attributes.*top of a module"),
        ("text", "not callable"),
        (None, "not callable"),
    ],
)
def test_what_cannot_be_found_again_is_refused_saying_why(func: Any, why: str) -> None:
    with in_memory() as queue:
        with pytest.raises(CallableError, match=why):
            defer(func)
        assert queue.queued() == []


def test_a_nested_function_is_refused_saying_where_to_put_it() -> None:
    def nested() -> None:
        pass

    with in_memory(), pytest.raises(CallableError, match=r"inside a function.*top of its module"):
        defer(nested)


def test_a_function_put_into_an_instance_is_refused() -> None:
    bound = types.MethodType(note, Base())
    with in_memory(), pytest.raises(CallableError):
        defer(bound)


@pytest.mark.parametrize(
    "func",
    [os.system, subprocess.run, subprocess.Popen, eval, exec, __import__, open, functools.partial(os.system), os._exit],
)
def test_what_no_project_means_is_refused_at_both_ends(func: Any) -> None:
    task = Task(func=func, args=("true",))
    with in_memory() as queue:
        with pytest.raises(CallableForbiddenError, match="forbidden_callables"):
            defer(func, "true")
        assert queue.queued() == []
    free = config.Config(forbidden_callables=[])
    payload = encoder.pack_call(task, free)
    with pytest.raises(CallableForbiddenError):
        decoder.unpack_call(payload, config.Config())
    as_argument = encoder.pack_call(Task(func=note, args=(func,)), free)
    with pytest.raises(CallableForbiddenError):
        decoder.unpack_call(as_argument, config.Config())
    assert decoder.unpack_call(payload, free)[1] == ["true"]


def test_a_forbidden_callable_in_a_partial_is_refused_by_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "hidden", functools.partial(os.system, "true"))
    for ref in (f"{__name__}:hidden", ["partial", "os:system", ["true"], {}]):
        with pytest.raises(CallableForbiddenError, match="system"):
            decoder.unpack_call(encoder.pack([ref, [], {}]), config.Config())


def test_what_a_test_puts_in_a_callable_s_place_is_called() -> None:
    with in_memory() as queue:
        defer(note, 1)
        defer(Base("n").method, 2)
        with mock.patch.object(Base, "method") as method, mock.patch(f"{__name__}.note") as function:
            assert drain(queue).done == 2
        function.assert_called_once_with(1)
        method.assert_called_once_with(2)


def test_what_lies_in_a_method_s_place_must_be_allowed_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config.Config()
    payload = encoder.pack_call(Task(func=Base("n").method, args=("true",)), settings)
    monkeypatch.setattr(Base, "method", os.system)
    with pytest.raises(CallableForbiddenError, match="system"):
        decoder.unpack_call(payload, settings)
    monkeypatch.setattr(Base, "method", "text")
    with pytest.raises(DecodeError, match="no method"):
        decoder.unpack_call(payload, settings)


def test_an_allow_list_refuses_all_others_at_both_ends() -> None:
    ours = config.Config(callables=[f"{__name__}.note", "shop.*"])
    decoder.unpack_call(encoder.pack_call(Task(func=note), ours), ours)
    with pytest.raises(CallableForbiddenError, match="callables"):
        encoder.pack_call(Task(func=len), ours)
    payload = encoder.pack_call(Task(func=len), config.Config())
    with pytest.raises(CallableForbiddenError):
        decoder.unpack_call(payload, ours)


def test_a_name_that_does_not_resolve_is_not_found_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config.Config()
    payload = encoder.pack_call(Task(func=note), settings)
    monkeypatch.delitem(globals(), "note")
    with pytest.raises(CallableNotFoundError, match="note"):
        decoder.unpack_call(payload, settings)
    with pytest.raises(CallableNotFoundError):
        callables.resolve("no.such.module:thing")
