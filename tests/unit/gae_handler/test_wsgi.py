"""The WSGI application and the middleware, under the rules of wsgiref's validator."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from unit.gae_handler.handled import body_of, calls, crash, fail_once, note

import defer_gae_handler
from defer_core import ConfigError, defer
from defer_core.testing import MemoryTransport, in_memory
from defer_gae_handler import make_application, wrap_wsgi_app
from defer_gae_handler.request import EnvironHeaders

PATH = "/_ah/queue/deferred"


def call(app: Any, body: bytes = b"", **environ: Any) -> tuple[str, dict[str, str], bytes]:
    """Status line, headers and body of one POST from App Engine's queue."""
    given: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": PATH,
        "QUERY_STRING": "",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_X_APPENGINE_QUEUENAME": "default",
        "HTTP_X_APPENGINE_TASKNAME": "t-1",
        "wsgi.input": io.BytesIO(body),
    }
    setup_testing_defaults(given)
    given.update(environ)
    answer: list[Any] = []
    chunks = validator(app)(given, lambda status, headers, *_: answer.extend((status, headers)) or (lambda data: None))
    content = b"".join(chunks)
    chunks.close()  # type: ignore[attr-defined]
    return answer[0], dict(answer[1]), content


def theirs(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the site"]


@pytest.mark.usefixtures("app_engine")
def test_a_task_is_run_and_answered(queue: MemoryTransport) -> None:
    defer(note, 1)
    status, headers, content = call(make_application(), body_of(queue))
    assert (status, content) == ("200 OK", b"done")
    assert headers["Content-Length"] == "4"
    assert calls == [(1,)]


@pytest.mark.usefixtures("app_engine")
def test_a_failure_is_logged_with_its_traceback_and_answered_500(
    queue: MemoryTransport, caplog: pytest.LogCaptureFixture
) -> None:
    defer(crash)
    assert call(make_application(), body_of(queue))[0] == "500 Internal Server Error"
    [line] = [record for record in caplog.records if record.exc_info]
    assert "a bug" in caplog.text and "t-1" in line.getMessage()


@pytest.mark.usefixtures("app_engine")
def test_a_task_that_could_not_be_run_is_logged_with_its_name_and_retry(
    queue: MemoryTransport, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(io.BytesIO):
        def read(self, *size: Any) -> bytes:
            raise TypeError("a server's mistake")

    environ = {"wsgi.input": Broken(), "CONTENT_LENGTH": "9", "HTTP_X_APPENGINE_TASKRETRYCOUNT": "3"}
    assert call(make_application(), **environ)[0] == "500 Internal Server Error"
    assert caplog.messages == ["Task t-1 could not be run (retry 3): the queue will try again."]
    assert caplog.records[0].exc_info


@pytest.mark.usefixtures("app_engine")
def test_statuses_have_their_reasons(queue: MemoryTransport) -> None:
    app = make_application()
    defer(fail_once)
    assert call(app, body_of(queue))[0] == "408 Request Timeout"
    assert call(app, HTTP_X_APPENGINE_QUEUENAME="", HTTP_X_APPENGINE_TASKNAME="")[0] == "403 Forbidden"
    status, headers, _ = call(app, REQUEST_METHOD="PUT")
    assert (status, headers["Allow"]) == ("405 Method Not Allowed", "POST")
    assert call(app, CONTENT_LENGTH="99999999")[0].startswith("413 ")


@pytest.mark.usefixtures("app_engine")
def test_the_middleware_takes_its_path_alone(queue: MemoryTransport) -> None:
    app = wrap_wsgi_app(theirs)
    assert call(app, PATH_INFO="/")[2] == b"the site"
    assert call(app, PATH_INFO=PATH + "/x")[2] == b"the site"
    assert call(make_application(), PATH_INFO="/")[0] == "404 Not Found"
    defer(note)
    assert call(app, body_of(queue))[2] == b"done"


@pytest.mark.usefixtures("app_engine")
def test_the_path_is_that_of_the_configured_url() -> None:
    with in_memory(url="https://shop.example/tasks/run") as queue:
        defer(note)
        assert call(wrap_wsgi_app(theirs), body_of(queue), PATH_INFO="/tasks/run")[2] == b"done"
        mounted = call(wrap_wsgi_app(theirs), body_of(queue), SCRIPT_NAME="/tasks", PATH_INFO="/run")
        assert mounted[2] == b"done"
        assert call(wrap_wsgi_app(theirs, "/mine"), body_of(queue), PATH_INFO="/mine")[2] == b"done"


@pytest.mark.usefixtures("app_engine")
def test_a_chunked_body_is_read_to_the_end_that_the_server_marks(queue: MemoryTransport) -> None:
    defer(note)
    environ = {"wsgi.input_terminated": True, "CONTENT_LENGTH": ""}
    assert call(make_application(), body_of(queue), **environ)[0] == "200 OK"
    assert calls == [()]


def test_without_an_authenticator_it_refuses_to_be_built() -> None:
    for build in (make_application, lambda: wrap_wsgi_app(theirs), lambda: defer_gae_handler.application):
        with pytest.raises(ConfigError, match="No authenticator is configured"):
            build()
    with pytest.raises(ConfigError, match="DEFER_AUTHENTICATORS"):
        from defer_gae_handler.wsgi import application  # noqa: F401


def test_the_exports_are_these() -> None:
    assert sorted(defer_gae_handler.__all__) == [
        "Authenticator",
        "AuthenticatorUnavailableError",
        "Request",
        "Response",
        "__version__",
        "handle",
        "make_application",
        "wrap_wsgi_app",
    ]
    with pytest.raises(AttributeError):
        defer_gae_handler.nothing  # noqa: B018


def test_headers_of_an_environ_are_a_mapping() -> None:
    environ = {"REQUEST_METHOD": "POST", "HTTP_X_A": "1", "CONTENT_TYPE": "text/plain", "wsgi.version": (1, 0)}
    headers = EnvironHeaders(environ)
    assert dict(headers) == {"X-A": "1", "Content-Type": "text/plain"} and len(headers) == 2
    assert (headers["x-a"], headers.get("CONTENT-TYPE"), headers.get("X-B")) == ("1", "text/plain", None)
    with pytest.raises(KeyError):
        headers["Request-Method"]
