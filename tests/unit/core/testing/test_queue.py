"""`drain()`, which users' tests rely on: a failure is not overlooked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from defer_core import OptionError, SingularTaskFailure, defer
from defer_core.testing import MemoryTransport, drain, in_memory


def never_ready() -> None:
    raise SingularTaskFailure("not yet")


@pytest.fixture
def queue() -> Iterator[MemoryTransport]:
    with in_memory() as transport:
        yield transport


def test_a_task_that_asks_for_ever_to_be_tried_again_raises_unless_told_otherwise(queue: MemoryTransport) -> None:
    told: list[Any] = []
    for on_error in ("ignore", lambda task, error: told.append(type(error))):
        defer(never_ready)
        assert drain(on_error=on_error).gave_up == 1
    assert told == [SingularTaskFailure]
    defer(never_ready)
    with pytest.raises(SingularTaskFailure, match="3 times"):
        drain()
    assert queue.queued() == []


def test_another_word_for_what_to_do_is_refused(queue: MemoryTransport) -> None:
    with pytest.raises(OptionError, match="on_error is 'rise'"):
        drain(on_error="rise")
