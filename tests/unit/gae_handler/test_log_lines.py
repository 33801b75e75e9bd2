"""The log of the handler as Cloud Logging reads it: one line an attempt, with the fields to search it by."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from unit.gae_handler.conftest import Poster
from unit.gae_handler.handled import body_of, crash, fail_for_good, fail_once, note

from defer_core import CloudLoggingFormatter, defer
from defer_core.errors import ConfigError
from defer_core.testing import MemoryTransport, in_memory
from defer_gae_handler import Authenticator, AuthenticatorUnavailableError, Request
from defer_gae_handler.wsgi import answer

pytestmark = pytest.mark.usefixtures("app_engine")

ID, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
MODULE = "unit.gae_handler.handled"
TRACE = "logging.googleapis.com/trace"

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """What the log has, parsed."""
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "shop")
    stream, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(stream), root.level
    handler.setFormatter(CloudLoggingFormatter())
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
def deliver(queue: MemoryTransport, post: Poster) -> Callable[..., int]:
    """Defers a function, and delivers its task for the so-and-so-many-th time. Returns the status."""

    def run(func: Callable[..., Any], attempt: int = 1, **options: Any) -> int:
        queue.clear()
        defer(func, **options)
        return answer(post(body_of(queue), headers=headers(attempt))).status

    return run


def headers(attempt: int = 1) -> dict[str, str]:
    return {
        "X-AppEngine-QueueName": "mail",
        "X-AppEngine-TaskName": "t-1",
        "X-AppEngine-TaskRetryCount": str(attempt - 1),
        "X-Cloud-Trace-Context": f"{ID}/{int(SPAN, 16)};o=1",
    }


def only(lines: Lines) -> dict[str, Any]:
    """The one line about an attempt; each is about `t-1`, and belongs to the trace of its request."""
    [found] = [each for each in lines() if "outcome" in each]
    assert (found["task"], found["queue"]) == ("t-1", "mail")
    assert (found[TRACE], found["logging.googleapis.com/spanId"]) == (f"projects/shop/traces/{ID}", SPAN)
    assert isinstance(found["duration"], float) and found["duration"] >= 0
    return found


def test_a_task_that_succeeds(deliver: Callable[..., int], lines: Lines) -> None:
    assert deliver(note) == 200
    told = only(lines)
    assert (told["severity"], told["outcome"], told["attempt"]) == ("INFO", "done", 1)
    assert told["function"] == f"{MODULE}:note" and "error" not in told


def test_a_task_that_fails(deliver: Callable[..., int], lines: Lines) -> None:
    assert deliver(crash, attempt=2) == 500
    told = only(lines)
    assert (told["severity"], told["outcome"], told["attempt"]) == ("WARNING", "failed", 2)
    assert (told["function"], told["error"]) == (f"{MODULE}:crash", "ZeroDivisionError('a bug')")
    assert "reason" not in told


def test_a_task_that_asks_to_be_retried(deliver: Callable[..., int], lines: Lines) -> None:
    assert deliver(fail_once) == 408
    told = only(lines)
    assert (told["severity"], told["outcome"]) == ("WARNING", "retry") and "stack_trace" not in told


def test_the_first_failure_has_its_traceback_beside_the_message(deliver: Callable[..., int], lines: Lines) -> None:
    deliver(crash)
    told = only(lines)
    assert told["stack_trace"].startswith("Traceback") and "in crash" in told["stack_trace"]
    assert "Traceback" not in told["message"] and "failed at attempt 1" in told["message"]


@pytest.mark.parametrize(
    ("func", "attempt", "status", "reason", "error"),
    [
        (fail_for_good, 1, 200, "permanent", "PermanentTaskFailure('never')"),
        (crash, 3, 500, "gave up", "ZeroDivisionError('a bug')"),
        (fail_once, 3, 408, "gave up", "SingularTaskFailure('not yet')"),
    ],
)
def test_a_task_that_dies(
    deliver: Callable[..., int], lines: Lines, func: Any, attempt: int, status: int, reason: str, error: str
) -> None:
    assert deliver(func, attempt=attempt, _retry_options={"max_attempts": 3}) == status
    told = only(lines)
    assert (told["severity"], told["outcome"], told["reason"]) == ("ERROR", "dead", reason)
    assert (told["function"], told["attempt"], told["error"]) == (f"{MODULE}:{func.__name__}", attempt, error)
    assert "Traceback" in told["stack_trace"]


@pytest.mark.usefixtures("queue")
def test_a_task_that_cannot_be_read(post: Poster, lines: Lines) -> None:
    assert answer(post(b"no task", headers=headers())).status == 200
    told = only(lines)
    assert (told["severity"], told["outcome"], told["reason"]) == ("ERROR", "dead", "unreadable")
    assert "not a task of defer" in told["error"] and "function" not in told


def test_a_task_that_cannot_be_read_yet(post: Poster, lines: Lines) -> None:
    with in_memory(keys=["new"]) as queue:
        defer(note)
        body = body_of(queue)
    with in_memory(keys=["old"]):
        assert answer(post(body, headers=headers())).status == 408
    told = only(lines)
    assert (told["severity"], told["outcome"]) == ("WARNING", "retry") and told["error"]


def test_a_task_that_was_done_before(post: Poster, queue: MemoryTransport, lines: Lines) -> None:
    defer(note, os.urandom(150_000), _retry_options={"max_attempts": 2})
    body = body_of(queue)
    assert answer(post(body, headers=headers())).status == 200
    assert answer(post(body, headers=headers(attempt=2))).status == 200
    first, again = (each for each in lines() if "outcome" in each)
    assert (first["outcome"], again["outcome"], again["attempt"]) == ("done", "done", 2)
    assert "done before" in again["message"]


@pytest.mark.usefixtures("queue")
def test_a_request_that_is_let_in_by_no_authenticator(post: Poster, lines: Lines) -> None:
    given = {name.replace("AppEngine", "CloudTasks"): value for name, value in headers(attempt=2).items()}
    assert answer(post(b"", headers=given, remote_addr="203.0.113.9")).status == 403
    told = only(lines)
    assert (told["severity"], told["outcome"], told["attempt"]) == ("WARNING", "forbidden", 2)
    assert "appengine: " in told["error"] and "203.0.113.9" in told["message"]


class Down(Authenticator):
    name = "down"

    def accepts(self, request: Request) -> bool:
        raise AuthenticatorUnavailableError("the certificates cannot be fetched")


def test_a_request_that_cannot_be_authenticated_now(post: Poster, lines: Lines) -> None:
    with in_memory(authenticators=[Down()]):
        assert answer(post(b"", headers=headers())).status == 503
    told = only(lines)
    assert (told["severity"], told["outcome"]) == ("ERROR", "unavailable")
    assert told["error"] == "the certificates cannot be fetched"


@pytest.mark.usefixtures("queue")
def test_a_body_that_is_refused(post: Poster, lines: Lines) -> None:
    assert answer(post(b"x", headers={**headers(), "Content-Length": "3"})).status == 400
    assert (only(lines)["outcome"], only(lines)["error"]) == ("refused", "did not come whole: 1 bytes of 3")


def warn() -> None:
    """A task that logs by a logger of its own."""
    logging.getLogger("shop").warning("no stock", extra={"article": 17, "where": ConfigError("x")})


def test_what_a_task_logs_itself_has_its_task_and_its_trace(deliver: Callable[..., int], lines: Lines) -> None:
    deliver(warn, attempt=2)
    [told] = [each for each in lines() if each["logger"] == "shop"]
    assert (told["task"], told["queue"], told["attempt"], told["article"]) == ("t-1", "mail", 2, 17)
    assert told[TRACE] == f"projects/shop/traces/{ID}" and "outcome" not in told


def test_a_success_is_not_even_named_where_information_is_off(
    deliver: Callable[..., int], lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    logging.getLogger().setLevel(logging.WARNING)
    monkeypatch.setattr("defer_core.log_fields.of_attempt", lambda *_, **__: pytest.fail("fields were made"))
    assert deliver(note) == 200
    assert lines() == []
