"""One request: let in, read, run, answered."""

from __future__ import annotations

import inspect
import logging

from defer_core.config import Config, current
from defer_core.execute import Outcome, execute
from defer_core.sweep import sweep

from .attempt import delivery_of
from .doors import Door, DoorUnavailableError, configured_doors
from .doors.appengine import is_cron
from .doors.configured import NO_DOOR
from .request import Request, Response

log = logging.getLogger("defer.handler")

_TEXT = {"Content-Type": "text/plain; charset=utf-8"}
_ANSWERS = {
    Outcome.DONE: Response(status=200, headers=_TEXT, body=b"done"),
    Outcome.RETRY: Response(status=408, headers=_TEXT, body=b"to be tried again"),
    Outcome.PERMANENT: Response(status=200, headers=_TEXT, body=b"failed for good"),
}
_FORBIDDEN = Response(status=403, headers=_TEXT, body=b"no door is open to this request")
_NOT_ALLOWED = Response(status=405, headers={**_TEXT, "Allow": "POST"}, body=b"tasks are posted")
_TOO_LARGE = Response(status=413, headers=_TEXT, body=b"the body is too large")
_BAD_LENGTH = Response(status=400, headers=_TEXT, body=b"the body is not as long as it says")
_UNAVAILABLE = Response(status=503, headers={**_TEXT, "Retry-After": "10"}, body=b"the sender cannot be verified now")
_NO_DOOR = "; ".join(" ".join(line.split()) for line in NO_DOOR.splitlines())
SWEEP_BUDGET = 240.0
"""Seconds that the sweep of a cron request may take."""


def handle(request: Request) -> Response:
    """Answer one request of a queue. The exception of a task that failed, and is to be tried again, propagates: what is
    around this reports it and answers 500."""
    config = current()
    if request.method != "POST":
        return _swept(request)
    try:
        door = _opened(request, config)
    except DoorUnavailableError as error:
        log.error("A task request to %s waits: %s", request.path, error)
        return _UNAVAILABLE
    if door is None:
        return _FORBIDDEN
    body = _body(request, config.max_body)
    if isinstance(body, Response):
        return body
    return _ANSWERS[execute(body, delivery_of(request.headers, door))]


def _swept(request: Request) -> Response:
    """A GET of App Engine's cron service opens the sweep, and nothing else; no other method is allowed."""
    if request.method != "GET" or request.headers.get("X-AppEngine-Cron") is None:
        return _NOT_ALLOWED
    if not is_cron(request):
        log.warning("A cron request to %s from %s was refused: this is not App Engine.", *_origin(request))
        return _FORBIDDEN
    report = sweep(budget=SWEEP_BUDGET)
    return Response(status=500 if report.counts["failed"] else 200, headers=_TEXT, body=str(report).encode())


def _opened(request: Request, config: Config) -> Door | None:
    """The door that opens, or None. Raises DoorUnavailableError where one cannot tell and no other opens."""
    doors, unavailable = configured_doors(config), None
    for door in doors:
        try:
            if door.admits(request):
                return door
        except DoorUnavailableError as error:
            unavailable = error
    if unavailable is not None:
        raise unavailable
    why = f"none of the doors ({', '.join(door.name for door in doors)}) opens to it" if doors else _NO_DOOR
    log.warning("A task request to %s from %s was refused: %s", *_origin(request), why)
    return None


def _origin(request: Request) -> tuple[str, str]:
    """Path and address, fit for one line of a log."""
    return ascii(request.path[:200]), ascii(request.remote_addr[:60])


def _body(request: Request, limit: int) -> bytes | Response:
    """The body, or the answer to one that is too large, or cut off on its way (which the queue will send again)."""
    said = request.headers.get("Content-Length")
    if not said:
        body = _read(request, limit + 1)
        return body if len(body) <= limit else _TOO_LARGE
    if not (said.isascii() and said.isdigit()):
        return _BAD_LENGTH
    if len(said) > 18 or int(said) > limit:
        log.error("A task request to %s from %s is %s bytes long, over max_body (%d).", *_origin(request), said, limit)
        return _TOO_LARGE
    body = _read(request, int(said))
    return body if len(body) == int(said) else _BAD_LENGTH


def _read(request: Request, size: int) -> bytes:
    try:
        return request.read(size)
    except TypeError:
        if inspect.signature(request.read).parameters:
            raise
        return request.read()
