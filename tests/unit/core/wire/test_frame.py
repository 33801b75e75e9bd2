"""The frame: a pickle that Google's handler can run, and that we strip without unpickling anything."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from defer_core import PermanentTaskFailure, SingularTaskFailure, defer, execute
from defer_core.delivery import Delivery
from defer_core.errors import DecodeError
from defer_core.run.execute import Outcome
from defer_core.testing import in_memory
from defer_core.wire import frame

calls: list[Any] = []


def note(*args: Any) -> None:
    calls.append(args)


def fail(kind: str) -> None:
    raise {"permanent": PermanentTaskFailure, "singular": SingularTaskFailure, "value": ValueError}[kind](kind)


def body_of(func: Any, *args: Any) -> bytes:
    with in_memory() as queue:
        defer(func, *args)
        return queue.queued()[0].message.body


def test_the_frame_is_a_pickle_of_a_call_of_run_envelope() -> None:
    import defer_core

    body = body_of(note, 1)
    assert pickle.loads(body) == (defer_core.run_envelope, (frame.unwrap(body),), {})


def test_promise_8_ours_is_stripped_without_unpickling(monkeypatch: pytest.MonkeyPatch) -> None:
    body = body_of(note, 1, [2], {"three": 4.0})

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("something was unpickled")

    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    calls.clear()
    with in_memory():
        assert execute(body, Delivery(retry_count=0)) is Outcome.DONE
    assert calls == [(1, [2], {"three": 4.0})]


@pytest.mark.parametrize(
    "broken",
    [
        lambda body: body + b".",
        lambda body: body[:-1],
        lambda body: body[: len(frame.PREFIX)],
        lambda body: frame.PREFIX + (2**32 - 1).to_bytes(4, "little") + body[len(frame.PREFIX) + 4 :],
        lambda body: body[:-1] + b"x",
    ],
)
def test_a_length_that_lies_is_refused(broken: Any) -> None:
    with pytest.raises(DecodeError):
        frame.unwrap(broken(body_of(note)))
