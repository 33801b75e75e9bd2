"""Where tasks are delivered: a server on a base URL, or a WSGI application in this process."""

from __future__ import annotations

import http.client
import io
import logging
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from defer_core.delivery import DEFAULT_DEADLINE
from defer_core.errors import ConfigError

from .headers import dispatch_headers
from .queued import QueuedTask

log = logging.getLogger("defer.local")

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
_CHUNK = 65536
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class ServerAbsentError(Exception):
    """Nobody listens where the task is to go: it was certainly not delivered."""


class Target(ABC):
    """Delivers one attempt."""

    @abstractmethod
    def deliver(self, task: QueuedTask, secret: str) -> int | None:
        """The HTTP status of the answer, or None where there was none in time. Raises ServerAbsentError."""


class HttpTarget(Target):
    """Posts to `base_url` + the task's path, or to the task's own URL where that is absolute."""

    def __init__(self, base_url: str) -> None:
        self.base = _split(base_url)

    def deliver(self, task: QueuedTask, secret: str) -> int | None:
        url = urlsplit(task.routing.url or "") if task.is_http else self._joined(task.routing.url or "/")
        knows = task.proto is None and (url.netloc == self.base.netloc or url.hostname in _LOOPBACK)
        return _request(url, task, dispatch_headers(task, secret if knows else None))

    def _joined(self, path: str) -> SplitResult:
        return urlsplit(self.base.geturl().rstrip("/") + path)


class WsgiTarget(Target):
    """Calls a WSGI application; a task with an absolute URL goes there by HTTP all the same. An application cannot be
    cut short, so its answer counts whenever it comes."""

    def __init__(self, app: WsgiApp) -> None:
        self.app = app

    def deliver(self, task: QueuedTask, secret: str) -> int | None:
        if task.is_http:
            return HttpTarget("http://127.0.0.1").deliver(task, secret)
        return call_wsgi(self.app, task, dispatch_headers(task, None if task.proto is not None else secret))


def as_target(given: str | WsgiApp | Target) -> Target:
    """A target from a base URL, a WSGI application or a target. Raises ConfigError."""
    if isinstance(given, Target):
        return given
    if isinstance(given, str):
        return HttpTarget(given)
    if callable(given):
        return WsgiTarget(given)
    raise ConfigError(f"{given!r} is no target: give a base URL (http://127.0.0.1:8000) or a WSGI application.")


def _split(base_url: str) -> SplitResult:
    url = urlsplit(base_url)
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        raise ConfigError(f"The URL {base_url!r} is no base URL: it looks like http://127.0.0.1:8000")
    return url


def _request(url: SplitResult, task: QueuedTask, headers: dict[str, str]) -> int | None:
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    deadline = task.routing.dispatch_deadline or DEFAULT_DEADLINE
    until = time.monotonic() + deadline
    connection = kind(url.hostname or "", url.port, timeout=deadline)
    try:
        try:
            connection.connect()
        except ConnectionRefusedError as error:
            raise ServerAbsentError(f"Nobody listens at {url.netloc}") from error
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        connection.request(task.method, path, body=task.body or None, headers=headers)
        return _whole_answer(connection, until)
    except (OSError, http.client.HTTPException, ValueError) as error:
        log.debug("Task %s in %s had no answer: %r", task.name, task.queue, error)
        return None
    finally:
        connection.close()


def _whole_answer(connection: http.client.HTTPConnection, until: float) -> int:
    """The status of an answer that came to its end. Raises OSError where it did not in time."""
    sock = connection.sock
    sock.settimeout(_left(until))
    response = connection.getresponse()
    while response.read(_CHUNK):
        sock.settimeout(_left(until))
    return response.status


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("The dispatch deadline has passed.")
    return left


def call_wsgi(app: WsgiApp, task: QueuedTask, headers: dict[str, str]) -> int:
    """The status that a WSGI application answers; 500 where it raises."""
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
    except Exception:
        log.exception("The application raised at task %s in %s.", task.name, task.queue)
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
