"""`handle`: what each kind of request is answered with, and what is not even looked at."""

from __future__ import annotations

import io
import pickle

import msgpack
import pytest
from unit.gae_handler.conftest import Poster
from unit.gae_handler.handled import QUEUE, body_of, calls, crash, fail_for_good, fail_once, note, note_delivery

from defer_core import defer
from defer_core.spi import State
from defer_core.testing import MemoryTransport, in_memory
from defer_gae_handler import Request, Response, handle

pytestmark = pytest.mark.usefixtures("app_engine")


def unread(*_: object) -> bytes:
    raise AssertionError("the body was read")


# --- what a task's end is answered with -------------------------------------------------------------------------------


def test_a_task_that_returns_is_answered_200(queue: MemoryTransport, post: Poster) -> None:
    defer(note, 1)
    assert handle(post(body_of(queue))).status == 200
    assert calls == [(1,)]


def test_a_singular_failure_is_answered_408(queue: MemoryTransport, post: Poster) -> None:
    defer(fail_once)
    assert handle(post(body_of(queue))).status == 408


def test_a_permanent_failure_is_answered_200_and_kept(queue: MemoryTransport, post: Poster) -> None:
    defer(fail_for_good)
    assert handle(post(body_of(queue))).status == 200
    from defer_core.spi import current

    store = current().the_store
    assert store is not None
    assert [record.reason for record in store.list(State.DEAD)] == ["permanent"]


def test_any_other_exception_propagates(queue: MemoryTransport, post: Poster) -> None:
    defer(crash)
    with pytest.raises(ZeroDivisionError):
        handle(post(body_of(queue)))


# --- who is let in ----------------------------------------------------------------------------------------------------


def test_what_is_not_from_the_queue_runs_nothing_and_decodes_nothing(
    post: Poster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_memory(accept_legacy_pickles=True) as queue:
        defer(note, {1, 2})
        bodies = [body_of(queue), pickle.dumps((note, (), {})), b"\x80junk"]
        for module, name in ((pickle, "loads"), (msgpack, "unpackb"), (msgpack, "Unpacker")):
            monkeypatch.setattr(module, name, unread)
        for body in bodies:
            for headers in (
                {},
                {"X-AppEngine-Fake": "1"},
                {"X-CloudTasks-TaskName": "t"},
                {"Authorization": "Bearer x.y.z"},
            ):
                assert handle(post(body, headers=headers, read=unread)).status == 403
    assert calls == []


def test_without_an_authenticator_a_request_gets_403_and_a_line_with_the_remedy(
    post: Poster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("GAE_ENV")
    with in_memory():
        assert handle(post(read=unread)).status == 403
    [line] = caplog.records
    assert "DEFER_AUTHENTICATORS" in line.getMessage()
    assert "\n" not in line.getMessage()


def test_a_refusal_is_one_line_that_a_stranger_cannot_break(
    post: Poster, caplog: pytest.LogCaptureFixture, queue: MemoryTransport
) -> None:
    assert handle(post(headers={}, path="/x\nERROR owned", remote_addr="6.6.6.6\n", read=unread)).status == 403
    [line] = caplog.records
    assert "\n" not in line.getMessage()
    assert "appengine" in line.getMessage()


# --- what is not read -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_only_post_is_allowed(post: Poster, method: str) -> None:
    answer = handle(post(method=method, read=unread))
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_a_body_over_the_limit_is_answered_413_unread(post: Poster) -> None:
    with in_memory(max_body=5000):
        assert handle(post(headers={**QUEUE, "Content-Length": "5001"}, read=unread)).status == 413
        assert handle(post(headers={**QUEUE, "Content-Length": "9" * 4000}, read=unread)).status == 413


def test_a_body_at_the_limit_runs(post: Poster) -> None:
    with in_memory() as queue:
        defer(note, "x" * 2000)
        body = body_of(queue)
    with in_memory(max_body=len(body)):
        assert handle(post(body, headers={**QUEUE, "Content-Length": str(len(body))})).status == 200
        assert handle(post(read=io.BytesIO(body).read)).status == 200
    assert len(calls) == 2


def test_without_a_length_no_more_than_the_limit_is_read(post: Poster) -> None:
    stream = io.BytesIO(b"x" * 100_000)
    with in_memory(max_body=5000):
        assert handle(post(read=stream.read)).status == 413
    assert stream.tell() == 5001


@pytest.mark.parametrize("length", ["1000000", "-1", "1.5", "٣", "abc"])
def test_a_length_that_lies_is_answered_400_and_runs_nothing(queue: MemoryTransport, post: Poster, length: str) -> None:
    defer(note)
    body = body_of(queue)
    assert handle(post(body, headers={**QUEUE, "Content-Length": length})).status == 400
    assert calls == []


def test_a_read_without_a_size_will_do(queue: MemoryTransport, post: Poster) -> None:
    defer(note)
    body = body_of(queue)
    assert handle(post(read=lambda: body)).status == 200
    assert calls == [()]


def test_a_type_error_of_the_server_is_not_hidden(post: Poster) -> None:
    def broken(size: int) -> bytes:
        raise TypeError("the server's own")

    with pytest.raises(TypeError, match="the server's own"):
        handle(post(read=broken))


# --- cron -------------------------------------------------------------------------------------------------------------


def test_a_get_of_app_engines_cron_sweeps(queue: MemoryTransport, post: Poster) -> None:
    defer(note)
    answer = handle(post(method="GET", headers={"X-Appengine-Cron": "true"}, read=unread))
    assert (answer.status, answer.body) == (200, b"1 dropped")
    assert calls == []


def test_cron_is_told_what_failed(queue: MemoryTransport, post: Poster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("defer_core.upkeep.sweep._sweepers", {"broken": lambda until: 1 // 0})
    answer = handle(post(method="GET", headers={"X-Appengine-Cron": "true"}, read=unread))
    assert (answer.status, answer.body) == (500, b"1 failed")


def test_cron_opens_nothing_but_the_sweep(queue: MemoryTransport, post: Poster) -> None:
    assert handle(post(headers={"X-Appengine-Cron": "true"}, read=unread)).status == 403


@pytest.mark.parametrize(
    ("shown", "peer", "status"),
    [
        ("198.51.100.7", "127.0.0.1", 403),
        (None, "8.8.8.8", 403),
        ("0.1.0.3", "127.0.0.1", 403),
        ("0.1.0.2", "127.0.0.1", 200),
        ("0.1.0.1", "127.0.0.1", 200),  # as old versions of gcloud have made them
        (None, "169.254.1.1", 200),
        (None, "", 200),
    ],
)
def test_cron_comes_from_where_the_queue_does(
    queue: MemoryTransport, post: Poster, caplog: pytest.LogCaptureFixture, shown: str | None, peer: str, status: int
) -> None:
    headers = {"X-AppEngine-Cron": "true", **({"X-AppEngine-User-IP": shown} if shown else {})}
    answer = handle(post(method="GET", headers=headers, remote_addr=peer, read=unread))
    assert answer.status == status
    if status == 403:
        assert answer.body == b"forbidden: wrong address"
        assert f"wrong address ({shown or peer}, expected 0.1.0.2 or 0.1.0.1)" in caplog.messages[0]


def test_cron_is_nobody_elsewhere(post: Poster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GAE_ENV")
    monkeypatch.setattr("defer_gae_handler.handler.sweep", unread)
    assert handle(post(method="GET", headers={"X-Appengine-Cron": "true"}, read=unread)).status == 403


# --- the attempt ------------------------------------------------------------------------------------------------------


def test_the_task_sees_its_attempt(queue: MemoryTransport, post: Poster) -> None:
    defer(note_delivery)
    headers = {
        "X-AppEngine-QueueName": "mail",
        "X-AppEngine-TaskName": "t-9",
        "X-AppEngine-TaskRetryCount": "3",
        "X-AppEngine-TaskExecutionCount": "2",
        "X-AppEngine-TaskETA": "1800000000.250000",
        "X-AppEngine-TaskPreviousResponse": "503",
        "X-AppEngine-TaskRetryReason": "App Error",
    }
    handle(post(body_of(queue), headers=headers))
    [delivery] = calls
    seen = (delivery.queue, delivery.task_name, delivery.retry_count, delivery.execution_count, delivery.eta)
    assert seen == ("mail", "t-9", 3, 2, 1800000000.25)
    assert (delivery.previous_response, delivery.retry_reason, delivery.target) == (503, "App Error", "appengine")


@pytest.mark.parametrize("count", ["", "x", "-1", "1e3", "9" * 5000, "٣"])
@pytest.mark.parametrize("eta", ["", "x", "nan", "inf", "-5"])
def test_numbers_that_are_none_are_none(queue: MemoryTransport, post: Poster, count: str, eta: str) -> None:
    defer(note_delivery)
    headers = {**QUEUE, "X-AppEngine-TaskRetryCount": count, "X-AppEngine-TaskETA": eta}
    assert handle(post(body_of(queue), headers=headers)).status == 200
    [delivery] = calls
    assert (delivery.retry_count, delivery.execution_count, delivery.eta) == (None, None, None)


def test_app_engines_authenticator_does_not_believe_headers_that_google_does_not_guard(
    queue: MemoryTransport, post: Poster
) -> None:
    defer(note_delivery)
    handle(
        post(body_of(queue), headers={**QUEUE, "X-CloudTasks-TaskName": "forged", "X-CloudTasks-TaskRetryCount": "7"})
    )
    [delivery] = calls
    assert (delivery.task_name, delivery.retry_count) == ("t-1", None)


# --- nouns ------------------------------------------------------------------------------------------------------------


def test_header_names_have_no_case() -> None:
    request = Request(method="POST", headers={"Content-Type": "a", "x-b": "c"}, read=unread)
    assert request.headers["CONTENT-TYPE"] == "a"
    assert request.headers.get("X-B") == "c"
    assert "X-b" in request.headers and "X-c" not in request.headers
    assert dict(Response(status=405, headers={"Allow": "POST"}).headers) == {"Allow": "POST"}


def test_requests_and_responses_are_frozen_and_take_their_fields_in_order(queue: MemoryTransport) -> None:
    defer(note)
    body = body_of(queue)
    answer = handle(Request("POST", "/_ah/queue/deferred", QUEUE, "0.1.0.2", lambda size: body))
    assert (answer.status, calls) == (200, [()])
    assert Response(405, {"Allow": "POST"}, b"x") == Response(status=405, headers={"Allow": "POST"}, body=b"x")
    with pytest.raises(AttributeError):
        answer.status = 500  # type: ignore[misc]
