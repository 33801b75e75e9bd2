"""A project behind an allow-list, `unit.gae_handler.stall.*`, as strangers find it."""

from __future__ import annotations

import enum
import functools
import logging
import operator
import os
from typing import Any

import defer_core

assert defer_core  # as every project that defers imports it
calls: list[Any] = []


def ok(*args: Any) -> None:
    calls.append(args)


@functools.lru_cache
def cached(*args: Any) -> None:
    calls.append(("cached", *args))


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    def inner(*args: Any) -> Any:
        return function(*args)

    return inner


@decorated
def wrapped(*args: Any) -> None:
    calls.append(("wrapped", *args))


class Basket:
    """What tasks call, too: it, its methods, and those of the one at the top of the module."""

    rebate = 0
    log = logging
    contents: list[Any] = []

    def __init__(self, *args: Any) -> None:
        calls.append(("Basket", *args))

    def add(self, *args: Any) -> None:
        calls.append(("add", *args))

    @classmethod
    def of(cls, *args: Any) -> None:
        calls.append(("of", *args))

    @staticmethod
    def weigh(*args: Any) -> None:
        calls.append(("weigh", *args))

    def __call__(self, *args: Any) -> None:
        calls.append(("called", *args))

    class Lid:
        """A class in a class."""

        @classmethod
        def close(cls, *args: Any) -> None:
            calls.append(("close", *args))


class Colour(enum.Enum):
    RED = 1


basket = Basket()
calls.clear()
part = functools.partial(ok, 1)
push = calls.append
hidden = functools.partial(calls.append, 1)
deeper = functools.partial(functools.partial(os.system), "true")
getter = operator.methodcaller("clear")
