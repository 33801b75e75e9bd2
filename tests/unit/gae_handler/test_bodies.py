"""A task runs if its whole body has come; else it is the queue's to send again: never a 2xx, never a dead letter."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIRequest
from unit.gae_handler.handled import body_of, calls, note

from defer_core import defer
from defer_core.spi import State, current
from defer_core.testing import MemoryTransport, in_memory
from defer_core.wire import frame
from defer_gae_handler import Request, handle, make_application, wrap_wsgi_app
from defer_gae_handler.django.views import deferred_handler

pytestmark = pytest.mark.usefixtures("app_engine")

Entry = Callable[[dict[str, Any]], int]
PATH = "/_ah/queue/deferred"


class Stream:
    """The input of a server: it gives a little at a time, and may break off with an error."""

    def __init__(self, data: bytes, error: BaseException | None = None, piece: int = 100) -> None:
        self.data, self.error, self.piece = io.BytesIO(data), error, piece

    def read(self, size: int = -1) -> bytes:
        data = self.data.read(min(size, self.piece) if size >= 0 else -1)
        if not data and size and self.error is not None:
            raise self.error
        return data

    readline = read  # which Django looks for

    def given(self) -> int:
        return self.data.tell()


def environ_of(stream: Any, length: str = "", *, terminated: bool = False, **more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": PATH,
        "SERVER_NAME": "shop",
        "SERVER_PORT": "80",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_X_APPENGINE_QUEUENAME": "default",
        "HTTP_X_APPENGINE_TASKNAME": "t-1",
        "wsgi.input": stream,
        "wsgi.url_scheme": "http",
        **more,
    }
    if length:
        given["CONTENT_LENGTH"] = length
    else:
        given["HTTP_TRANSFER_ENCODING"] = "chunked"
    return given | ({"wsgi.input_terminated": True} if terminated else {})


def through(app: Any) -> Entry:
    def entry(environ: dict[str, Any]) -> int:
        statuses: list[str] = []
        b"".join(app(environ, lambda status, headers: statuses.append(status)))
        return int(statuses[0][:3])

    return entry


def application(environ: dict[str, Any]) -> int:
    return through(make_application())(environ)


def middleware(environ: dict[str, Any]) -> int:
    return through(wrap_wsgi_app(lambda environ, start_response: [b"the site"]))(environ)


def view(environ: dict[str, Any]) -> int:
    return int(deferred_handler(WSGIRequest(environ)).status_code)


ENTRIES = [application, middleware, view]


@pytest.fixture
def body(queue: MemoryTransport) -> bytes:
    """The body of a task that calls `note(…)`."""
    defer(note, "x" * 700, _small_task=True)
    return body_of(queue)


def nothing_ran() -> bool:
    store = current().the_store
    assert store is not None
    return calls == [] and not any(store.list(state) for state in State)


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_body_is_read_to_its_end(entry: Entry, body: bytes) -> None:
    for environ in (
        environ_of(Stream(body), str(len(body))),
        environ_of(Stream(body), str(len(body)), terminated=True),
        environ_of(Stream(body), terminated=True),
        environ_of(Stream(body, piece=1), terminated=True),
        environ_of(Stream(body), **{"asgi.scope": {}}),
        environ_of(Stream(body), terminated=True, CONTENT_LENGTH=""),
    ):
        calls.clear()
        assert (entry(environ), calls) == (200, [("x" * 700,)])


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_body_that_did_not_come_whole_runs_nothing(
    entry: Entry, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    ends = (0, 1, len(frame.PREFIX), len(frame.PREFIX) + 4, 100, len(body) - 1)
    whole = str(len(body))
    cut = [environ_of(Stream(body[:end]), whole) for end in ends]
    for error in (OSError("Invalid chunk header"), ValueError("no chunk"), ConnectionResetError()):
        cut += [environ_of(Stream(body[:end], error), terminated=True) for end in (*ends, len(body))]
        cut += [environ_of(Stream(body[:end], error), whole) for end in ends]
    cut += [environ_of(Stream(body[:end]), terminated=True) for end in ends]  # a server that takes the cut for the end
    cut += [environ_of(Stream(body[:end]), **{"asgi.scope": {}}) for end in ends]
    for environ in cut:
        caplog.clear()
        assert entry(environ) == 400
        [line] = caplog.records
        assert line.levelno == logging.WARNING and line.getMessage().isprintable()
        assert "did not come whole" in line.getMessage()
    assert nothing_ran()


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_body_that_is_missing_runs_nothing(entry: Entry, body: bytes) -> None:
    for environ in (
        environ_of(Stream(b""), "0"),
        environ_of(Stream(body), "0"),
        environ_of(Stream(b""), terminated=True),
        environ_of(Stream(body)),  # in chunks, and the server does not say where they end
        environ_of(Stream(b"", error=AssertionError("it would wait for ever")), CONTENT_LENGTH=""),
    ):
        assert entry(environ) == 400
    assert nothing_ran()


@pytest.mark.parametrize("entry", ENTRIES)
def test_no_more_of_a_body_in_chunks_is_read_than_the_limit(
    entry: Entry, app_engine: None, caplog: pytest.LogCaptureFixture
) -> None:
    with in_memory(max_body=5000):
        stream = Stream(b"x" * 100_000)
        assert entry(environ_of(stream, terminated=True)) == 413
        assert stream.given() == 5001
        assert "longer than max_body (5000)" in caplog.text
        assert nothing_ran()


def test_a_middleware_of_django_that_has_looked_for_a_body_does_no_harm(body: bytes) -> None:
    for environ in (environ_of(io.BytesIO(body), terminated=True), environ_of(io.BytesIO(body), str(len(body)))):
        request = WSGIRequest(environ)
        request.body  # noqa: B018
        assert deferred_handler(request).status_code == 200
    assert len(calls) == 2


def test_any_framework_may_bring_no_body(body: bytes) -> None:
    headers = {"X-AppEngine-QueueName": "default"}
    assert handle(Request("POST", PATH, headers)).status == 400
    assert handle(Request("POST", PATH, headers, "", lambda: b"")).status == 400
    assert nothing_ran()


def test_every_beginning_of_a_body_is_told_from_the_whole(body: bytes) -> None:
    assert all(frame.is_cut_off(body[:end]) for end in range(len(body)))
    for other in (body, body + b"x", b"junk" * 50, b"\x80\x04junk", b"{}"):
        assert not frame.is_cut_off(other)
