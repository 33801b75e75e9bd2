"""What a body says that it calls, for a line of the log."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from defer_core import defer
from defer_core.spi import callable_in
from defer_core.testing import in_memory


class Mailer:
    def send(self, *words: str) -> None:
        """A method to defer."""


def body_of(func: Callable[..., Any], *args: Any, **config: Any) -> bytes:
    with in_memory(**config) as queue:
        defer(func, *args)
        [task] = queue.queued()
    return task.message.body


@pytest.mark.parametrize("config", [{}, {"keys": ["k"]}], ids=str)
def test_a_call_is_named(config: dict[str, Any]) -> None:
    where = Mailer.__module__
    assert callable_in(body_of(print, {1, 2}, {(1, 2): 3}, **config)) == "builtins:print"
    assert callable_in(body_of(partial(print, Mailer()), 1, **config)) == "builtins:print"
    assert callable_in(body_of(Mailer().send, "a", **config)) == "send"
    assert callable_in(body_of(Mailer, **config)) == f"{where}:Mailer"


def test_a_body_that_does_not_say_is_no_error() -> None:
    assert callable_in(body_of(print, os.urandom(2_000_000))) == "", "its call is in the store"
    body = body_of(print, "x")
    for other in (b"", b"{}", b"\x80\x04junk", *(body[:end] for end in range(len(body)))):
        assert callable_in(other) == ""
