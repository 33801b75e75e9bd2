"""Where tasks are delivered: a server on a base URL, or a WSGI application in this process."""

from __future__ import annotations

import http.client
import io
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from defer_core.errors import ConfigError
from defer_core.spi import DEFAULT_DEADLINE, logger, one_line

from .answer import NoAnswerError, read_answer
from .connection import PORTS, Connection
from .headers import dispatch_headers
from .naming import attempt_of
from .queued import QueuedTask

log = logger("defer.local")

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class ServerAbsentError(Exception):
    """No server listens at the address of the task: it was certainly not delivered."""


class Target(ABC):
    """Delivers one attempt."""

    @abstractmethod
    def deliver(self, task: QueuedTask, secret: str) -> int:
        """Return the HTTP status of the answer. Raises ServerAbsentError, or NoAnswerError if no complete answer came
        within the dispatch deadline."""


class HttpTarget(Target):
    """Posts to `base_url` + the task's path, or to the task's own URL if that is absolute.

    The secret goes to the server of `base_url` alone: its scheme, host and port. `localhost` is 127.0.0.1 or ::1, and
    different programs may listen at each: if a task's URL has one name and `base_url` the other, the task goes to the
    server of `base_url`.
    """

    def __init__(self, base_url: str) -> None:
        self.base = _split(base_url)

    def deliver(self, task: QueuedTask, secret: str) -> int:
        path = task.routing.url or "/"
        url = _own_url(task) if task.is_http else urlsplit(self.base.geturl().rstrip("/") + path)
        if not _is_same_server(url, self.base):
            return _request(url, task, dispatch_headers(task))
        return _request(url._replace(netloc=self.base.netloc), task, dispatch_headers(task, _for_ours(task, secret)))


class WsgiTarget(Target):
    """Calls a WSGI application, which gets the secret; a task with an absolute URL is posted to that. An application
    cannot be interrupted, so its answer counts however late it comes."""

    def __init__(self, app: WsgiApp) -> None:
        self.app = app

    def deliver(self, task: QueuedTask, secret: str) -> int:
        if task.is_http:
            return _request(_own_url(task), task, dispatch_headers(task))
        return call_wsgi(self.app, task, dispatch_headers(task, _for_ours(task, secret)))


def as_target(given: str | WsgiApp | Target) -> Target:
    """Make a target from a base URL, a WSGI application or a target. Raises ConfigError."""
    if isinstance(given, Target):
        return given
    if isinstance(given, str):
        return HttpTarget(given)
    if callable(given):
        return WsgiTarget(given)
    raise ConfigError(f"{given!r} is not a target: give a base URL (http://127.0.0.1:8000) or a WSGI application.")


def _split(base_url: str) -> SplitResult:
    url = _address(base_url)
    if url is None or url.query or url.fragment:
        raise ConfigError(f"The URL {base_url!r} is not a base URL such as http://127.0.0.1:8000.")
    return url


def _own_url(task: QueuedTask) -> SplitResult:
    """Return the absolute URL of a task. Raises NoAnswerError for an address that HTTP cannot reach."""
    url = _address(task.routing.url or "")
    if url is None:
        raise NoAnswerError(f"{one_line(task.routing.url)!r} is not a URL that tasks can be posted to")
    return url


def _address(given: str) -> SplitResult | None:
    """Split a URL; return None if it has no host or an invalid port."""
    with suppress(ValueError):
        url = urlsplit(given)
        if url.scheme in PORTS and url.hostname and _port(url) > 0:
            return url
    return None


def _port(url: SplitResult) -> int:
    return PORTS[url.scheme] if url.port is None else url.port


def _is_same_server(url: SplitResult, base: SplitResult) -> bool:
    """Tell whether two URLs name one server, perhaps one as `localhost` and the other by its address."""
    hosts = {url.hostname, base.hostname}
    same_host = len(hosts) == 1 or ("localhost" in hosts and hosts < _LOOPBACK)
    return same_host and (url.scheme, _port(url)) == (base.scheme, _port(base))


def _for_ours(task: QueuedTask, secret: str) -> str | None:
    """Return the secret, unless the task came by the Cloud Tasks API, which any process here can call."""
    return secret if task.proto is None else None


def _request(url: SplitResult, task: QueuedTask, headers: dict[str, str]) -> int:
    """Post a task and return the status of the answer. Raises NoAnswerError or ServerAbsentError."""
    deadline = task.routing.dispatch_deadline or DEFAULT_DEADLINE
    until = time.monotonic() + deadline
    connection = Connection(url.scheme, url.hostname or "", _port(url), until)
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    doing = f"{url.netloc} cannot be reached: "
    try:
        connection.connect()
        doing = ""
        connection.request(task.method, path, body=task.body or None, headers={**headers, "Connection": "close"})
        return read_answer(connection.receive, task.method)
    except ConnectionRefusedError as error:
        raise ServerAbsentError(f"No server listens at {one_line(url.netloc)}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = f"no complete answer within {deadline:g} s" if time.monotonic() >= until else _said(error)
        raise NoAnswerError(one_line(doing + why)) from error
    finally:
        connection.close()


def _said(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or repr(error)


def call_wsgi(app: WsgiApp, task: QueuedTask, headers: dict[str, str]) -> int:
    """Call a WSGI application and return the status of its answer; 500 if it raises."""
    statuses: list[str] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], None]:
        statuses.append(status)
        return lambda data: None

    try:
        answer = app(_environ(task, headers), start_response)
        try:
            for _ in answer:
                pass
        finally:
            close = getattr(answer, "close", None)
            if close is not None:
                close()
        return int(statuses[-1].split(" ")[0])
    except Exception as error:
        log.error("%s: the application raised %s", attempt_of(task), repr(error), exc_info=task.attempts == 1)
        return 500


def _environ(task: QueuedTask, headers: dict[str, str]) -> dict[str, Any]:
    path, _, query = (task.routing.url or "/").partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": task.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(path, "latin-1"),
        "QUERY_STRING": query,
        "CONTENT_LENGTH": str(len(task.body)),
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(task.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
    return environ
