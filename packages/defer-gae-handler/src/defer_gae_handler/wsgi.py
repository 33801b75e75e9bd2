"""The handler as a WSGI application, and as middleware in front of one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from defer_core.config import current
from defer_core.frozen import made

from .doors.configured import required_doors
from .handler import handle
from .request import EnvironHeaders, Request, Response

log = logging.getLogger("defer.handler")

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]
_FAILED = Response(status=500, headers={"Content-Type": "text/plain; charset=utf-8"}, body=b"the task failed")
_NOT_FOUND = Response(status=404, headers={"Content-Type": "text/plain; charset=utf-8"}, body=b"not found")
_REASONS = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


def make_application(path: str | None = None) -> WsgiApp:
    """A WSGI application that answers tasks, and all else with 404. Raises ConfigError where no door is configured."""
    return wrap_wsgi_app(_not_found, path)


def wrap_wsgi_app(app: WsgiApp, path: str | None = None) -> WsgiApp:
    """`app`, with the handler in front of it at `path` (that of the configured URL: `/_ah/queue/deferred`).

    A task that raises is logged, with its traceback, and answered with 500. Raises ConfigError where no door is
    configured.
    """
    config = current()
    required_doors(config)
    where = path or urlsplit(config.post_url()).path

    def with_tasks(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "") != where:
            return app(environ, start_response)
        return send(_answer(environ), start_response)

    return with_tasks


def request_of(environ: Environ) -> Request:
    """The request of a WSGI environ; without a length or an end that the server marks, there is no body."""
    read = environ["wsgi.input"].read
    bounded = environ.get("CONTENT_LENGTH") or environ.get("wsgi.input_terminated")
    return made(
        Request,
        method=environ["REQUEST_METHOD"],
        path=environ.get("PATH_INFO", ""),
        headers=EnvironHeaders(environ),
        remote_addr=environ.get("REMOTE_ADDR") or "",
        read=read if bounded else _nothing,
    )


def _nothing(size: int) -> bytes:
    return b""


def _answer(environ: Environ) -> Response:
    try:
        return handle(request_of(environ))
    except Exception:
        name = environ.get("HTTP_X_APPENGINE_TASKNAME") or environ.get("HTTP_X_CLOUDTASKS_TASKNAME")
        log.exception("Task %s failed; the queue is to try it again.", ascii(name))
        return _FAILED


def send(response: Response, start_response: StartResponse) -> list[bytes]:
    """Answer a WSGI request."""
    start_response(_REASONS[response.status], response.wsgi_headers.copy())
    return [response.body]


def _not_found(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    return send(_NOT_FOUND, start_response)


def __getattr__(name: str) -> Any:
    """`application`, made when it is first asked for: without a door it is refused there and then."""
    if name != "application":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return make_application()
