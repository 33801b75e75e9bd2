"""`_on_failed`: the news that an iteration is `failed` or `held`."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from testapp import iterations
from testapp.models import Row

from defer_core.errors import DecodeError, OptionError, PermanentTaskFailure
from defer_core.testing import drain
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.protocol import suspension
from defer_iteration.stores.routing import store_on

from ..deliveries import deliver, finish, poison, state

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

CALL: dict[str, Any] = {"args": ["a"], "_shards": 1, "_on_failed": iterations.on_failed}


def start(**options: Any) -> Any:
    return walk(Row.objects.all(), iterations.callback, iterations.finalize, **CALL, **options)


def test_of_an_iteration_that_a_row_has_stopped(queue: Any, rows: Any) -> None:
    keys = rows(4)
    poison(keys[1], times=2)
    handle = start(_on_error="fail", _max_attempts=2, extra="b")
    drain(queue)
    [(told, reason, args, kwargs)] = iterations.news
    assert (told, args, kwargs) == ("failed", ("a",), {"extra": "b"})
    assert "has raised 2 times" in reason and "poison" in reason
    assert handle.resume()
    drain(queue)
    assert set(iterations.seen) == set(keys) and len(iterations.news) == len(iterations.finalized) == 1


def test_of_each_time_that_it_stops(queue: Any, rows: Any) -> None:
    keys = rows(2)
    poison(keys[0])
    handle = start(_on_error="fail", _max_attempts=1)
    drain(queue)
    handle.resume()
    drain(queue)
    assert [each[0] for each in iterations.news] == ["failed", "failed"]


def refuse() -> None:
    raise PermanentTaskFailure("no printer")


def test_of_a_finalize_that_has_failed_for_good(queue: Any, rows: Any) -> None:
    rows(2)
    iterations.finalizing.append(refuse)
    start()
    drain(queue, on_error="ignore")
    [(told, reason, _, _)] = iterations.news
    assert told == "held" and "no printer" in reason


def test_it_is_enqueued_with_the_state_or_not_at_all(queue: Any, rows: Any) -> None:
    """Two transactions would lose the news with a process that dies between them."""
    keys = rows(2)
    poison(keys[0])
    start(_on_error="fail", _max_attempts=1)
    [plan] = queue.queued()
    finish(queue, plan)
    store = store_on("default")
    with (
        mock.patch.object(type(store), "checkpoint", side_effect=RuntimeError("the process dies")),
        pytest.raises(RuntimeError),
    ):
        deliver(queue.queued()[0])
    assert state() == "running" and len(queue.queued()) == 1


def test_nobody_is_told_what_is_no_longer_so(queue: Any, rows: Any) -> None:
    keys = rows(2)
    poison(keys[0], times=1)
    handle = start(_on_error="fail", _max_attempts=1)
    finish(queue, queue.queued()[0])
    finish(queue, queue.queued()[0])
    [news] = queue.queued()
    assert "-failed-" in news.name
    assert handle.resume()
    finish(queue, news)
    assert iterations.news == []
    drain(queue)
    assert len(iterations.finalized) == 1


def test_a_pause_and_an_iteration_without_it_tell_nobody(queue: Any, rows: Any) -> None:
    keys = rows(2)
    handle = start()
    assert handle.pause()
    poison(keys[0])
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _on_error="fail", _max_attempts=1)
    drain(queue)
    assert iterations.news == []


def test_news_that_fails_is_told_again(queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = rows(1)
    poison(keys[0])
    start(_on_error="fail", _max_attempts=1)
    calls = []

    class Deaf(list):  # type: ignore[type-arg]
        def append(self, told: Any) -> None:
            calls.append(told)
            if len(calls) == 1:
                raise ConnectionError("the pager does not answer")

    monkeypatch.setattr(iterations, "news", Deaf())
    drain(queue, on_error="ignore")
    assert len(calls) == 2


def test_a_job_that_cannot_be_read_is_held_and_its_news_is_an_error(
    queue: Any, rows: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rows(1)
    start()
    with (
        mock.patch.object(suspension, "unpack", side_effect=DecodeError("rubbish")),
        mock.patch("defer_iteration.protocol.failed.unpack", side_effect=DecodeError("rubbish")),
    ):
        drain(queue, on_error="ignore")
    assert state() == "held" and iterations.news == [] and "rubbish" in caplog.text


@pytest.mark.parametrize("given", [3, "print", lambda: None, iterations.throttle])
def test_what_cannot_be_called_with_the_arguments_is_refused_at_the_call(queue: Any, rows: Any, given: Any) -> None:
    with pytest.raises(TypeError) as caught:
        walk(Row.objects.all(), iterations.callback, iterations.finalize, ["a"], _on_failed=given)
    assert "_on_failed" in str(caught.value) + "".join(getattr(caught.value, "__notes__", ()))
    assert isinstance(caught.value, OptionError) or "function" in str(caught.value)
    assert queue.queued() == []
