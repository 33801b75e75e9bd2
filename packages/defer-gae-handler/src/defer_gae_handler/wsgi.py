"""The handler as a WSGI application, and as middleware in front of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from defer_core.spi import current, is_logged, logger

from .authenticators.configured import required_authenticators
from .handler import handle
from .request import EnvironHeaders, Request, Response, body_of, values

log = logger("defer.handler")

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]
_FAILED = Response.text(500, "the task failed")
NOT_FOUND = Response.text(404, "not found")
_REASONS = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


def make_application(path: str | None = None) -> WsgiApp:
    """Return a WSGI application that answers tasks, and anything else with 404.

    Raises ConfigError if no authenticator is configured.
    """
    return wrap_wsgi_app(_not_found, path)


def wrap_wsgi_app(app: WsgiApp, path: str | None = None) -> WsgiApp:
    """Return `app` with the handler in front of it at `path` (that of the configured URL: `/_ah/queue/deferred`).

    A task that raises is logged, and answered with 500. Raises ConfigError if no authenticator is configured.
    """
    config = current()
    required_authenticators(config)
    where = path or urlsplit(config.post_url()).path

    def with_tasks(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "") != where:
            return app(environ, start_response)
        return send(answer(request_of(environ)), start_response)

    return with_tasks


def request_of(environ: Environ) -> Request:
    """Read the request of a WSGI environ."""
    return Request(
        method=environ["REQUEST_METHOD"],
        path=environ.get("PATH_INFO", ""),
        headers=EnvironHeaders(environ),
        remote_addr=environ.get("REMOTE_ADDR") or "",
        read=body_of(environ),
    )


def answer(request: Request) -> Response:
    """Return what `handle` answers; log a task that raised, and answer 500."""
    try:
        return handle(request)
    except Exception as error:
        if not is_logged(error):
            kind = "AppEngine" if "X-AppEngine-TaskName" in request.headers else "CloudTasks"
            name, retries = values(request.headers, (f"X-{kind}-TaskName", f"X-{kind}-TaskRetryCount"))
            log.exception("Task %s could not be run (retry %s): the queue will try again.", name, retries)
        return _FAILED


def send(response: Response, start_response: StartResponse) -> list[bytes]:
    """Answer a WSGI request."""
    start_response(_REASONS[response.status], response.wsgi_headers.copy())
    return [response.body]


def _not_found(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    return send(NOT_FOUND, start_response)


def __getattr__(name: str) -> Any:
    """Make `application` when it is first used: without an authenticator that raises ConfigError."""
    if name != "application":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return make_application()
