"""A no-op task through our WSGI application, beside Google's `Handler.__call__`.

Google's handler logs every header of the request at INFO, ours a line with what came of the attempt. What that costs
depends on what the log is, so it is measured both ways: with lines that have a time and a level, written to a file, and
with nothing written at all.
"""

from __future__ import annotations

import io
import logging
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from defer_core import Task, clock, configure
from defer_core.config import current
from defer_core.wire import encoder, envelope, frame

from ._figures import Figure

ROUNDS, REQUESTS = 11, 1_000
GOAL = 0.5
HEADERS = {
    "HTTP_HOST": "shop.appspot.com",
    "HTTP_USER_AGENT": "AppEngine-Google; (+http://code.google.com/appengine)",
    "HTTP_X_APPENGINE_QUEUENAME": "default",
    "HTTP_X_APPENGINE_TASKNAME": "8f2d1c0a9b7e4f53a6c1d2e3f4a5b6c7",
    "HTTP_X_APPENGINE_TASKETA": "1800000000.000000",
    "HTTP_X_APPENGINE_TASKRETRYCOUNT": "0",
    "HTTP_X_APPENGINE_TASKEXECUTIONCOUNT": "0",
    "HTTP_X_APPENGINE_COUNTRY": "ZZ",
    "HTTP_X_APPENGINE_HTTPS": "on",
    "HTTP_X_APPENGINE_USER_IP": "0.1.0.2",
    "HTTP_X_APPENGINE_DEFAULT_VERSION_HOSTNAME": "shop.appspot.com",
    "HTTP_X_APPENGINE_REQUEST_LOG_ID": "6123456789abcdef",
}
"""What App Engine sends, about."""
App = Callable[[dict[str, Any], Callable[..., Any]], Any]


def no_op() -> None:
    """The task."""


def rows() -> list[Figure]:
    """With and without log lines."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from google.appengine.ext.deferred import deferred
    from defer_gae_handler import make_application

    os.environ["GAE_ENV"] = "standard"
    configure()
    theirs = deferred.Handler(), deferred.serialize(no_op)
    ours = make_application(), _body()
    with _logging_to_a_file():
        logged = _compare(theirs, ours)
    silent = _compare(theirs, ours)
    return [
        _figure("handler, no-op task, log at INFO", *logged, goal=f"≤ {GOAL}"),
        _figure("handler, no-op task, no log", *silent, goal=""),
    ]


def _body() -> bytes:
    payload = encoder.pack_call(Task(func=no_op), current())
    return frame.wrap(envelope.encode(envelope.Envelope(payload=payload, created=clock.now())))


def _compare(theirs: tuple[App, bytes], ours: tuple[App, bytes]) -> tuple[float, float]:
    """Medians of CPU seconds a request, theirs and ours, measured in turn."""
    pairs = [(_time(*theirs), _time(*ours)) for _ in range(ROUNDS)]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def _time(app: App, body: bytes) -> float:
    environs = [_environ(body) for _ in range(REQUESTS)]
    started = time.process_time()
    for environ in environs:
        app(environ, _start_response)
    return (time.process_time() - started) / REQUESTS


def _environ(body: bytes) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/_ah/queue/deferred",
        "SERVER_SOFTWARE": "gunicorn/23.0.0",
        "REMOTE_ADDR": "0.1.0.2",
        "CONTENT_TYPE": "application/octet-stream",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        **HEADERS,
    }


def _start_response(status: str, headers: list[tuple[str, str]]) -> None:
    assert status == "200 OK"


@contextmanager
def _logging_to_a_file() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    with open(os.devnull, "w") as file:
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        root.handlers[:] = [handler]
        root.setLevel(logging.INFO)
        try:
            yield
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)


def _figure(what: str, floor: float, ours: float, *, goal: str) -> Figure:
    return what, f"{floor * 1e6:.1f} µs", f"{ours * 1e6:.1f} µs", ours / floor, goal
