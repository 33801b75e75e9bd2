"""What the tests of App Engine's services defer."""

from __future__ import annotations

from typing import Any

import services

import defer_core

deferred = services.library("google.appengine.ext.deferred")

calls: list[Any] = []
"""What was called, with what."""


def note(*args: Any, **kwargs: Any) -> None:
    """Remember a call."""
    calls.append((args, kwargs))


def fail_once() -> None:
    """Our way of asking for another try."""
    raise defer_core.SingularTaskFailure("not yet")


def fail_for_good() -> None:
    """Our way of asking for none."""
    raise defer_core.PermanentTaskFailure("never")


def fail_once_in_googles_way() -> None:
    """The SDK's own failures count too."""
    raise deferred.SingularTaskFailure("not yet")


def fail_for_good_in_googles_way() -> None:
    """The SDK's own failures count too."""
    raise deferred.PermanentTaskFailure("never")


def crash() -> None:
    """Have a bug."""
    raise ZeroDivisionError("a bug")


class Greeter:
    """Has methods and is callable."""

    def __init__(self, name: str) -> None:
        self.name = name

    def greet(self, *args: Any) -> None:
        """A bound method."""
        calls.append((self.name, args))

    def __call__(self, *args: Any) -> None:
        calls.append(("called", self.name, args))

    @classmethod
    def make(cls, *args: Any) -> None:
        """A class method."""
        calls.append((cls.__name__, args))

    @staticmethod
    def still(*args: Any) -> None:
        """A static method."""
        calls.append(("still", args))
