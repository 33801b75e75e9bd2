"""Google's deferred handler, wrapped: its checks, its names and its defaults, for our bodies and its own.

    from defer_gae_handler import google as deferred      # was: from google.appengine.ext import deferred

Bodies of its own are pickles, which are unpickled here as they are there: whoever may add to the queue may run code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any

from google.appengine.ext.deferred import deferred as sdk
from google.appengine.ext.deferred.deferred import (
    Error,
    PermanentTaskFailure,
    SingularTaskFailure,
    invoke_member,
    set_log_level,
)

import defer_core
from defer_core import Delivery, Outcome, Task, TaskHandle, clock, codec, envelope, execute, frame
from defer_core.config import current

from .attempt import delivery_of
from .doors.appengine import AppEngineDoor
from .handler import handle
from .request import EnvironHeaders
from .wsgi import Environ, StartResponse, request_of, send

__all__ = [
    "Error",
    "Handler",
    "PermanentTaskFailure",
    "SingularTaskFailure",
    "application",
    "defer",
    "invoke_member",
    "run",
    "serialize",
    "set_log_level",
]


def defer(obj: Callable[..., Any], /, *args: Any, **kwargs: Any) -> TaskHandle:
    """`defer_core.defer` with the SDK's defaults: `_transactional` is False, and `_url=None` is the queue's own URL."""
    kwargs["_transactional"] = bool(kwargs.get("_transactional", False))
    if "_url" in kwargs and kwargs["_url"] is None:
        kwargs["_url"] = f"/_ah/queue/{kwargs.get('_queue') or 'default'}"
    return defer_core.defer(obj, *args, **kwargs)


def serialize(obj: Callable[..., Any], /, *args: Any, **kwargs: Any) -> bytes:
    """The body of a task that calls `obj(*args, **kwargs)`; all of it, however large."""
    config = current()
    payload = codec.pack_call(Task(func=obj, args=args, kwargs=kwargs), config)
    return frame.wrap(envelope.encode(envelope.Envelope(payload=payload, created=clock.now()), config.signer))


def run(data: bytes, delivery: Delivery | None = None) -> Any:
    """Run a body of ours or of the SDK's. Raises the SDK's two failures, and whatever else the task raises."""
    if frame.is_framed(data):
        return _run_ours(data, delivery or Delivery(target="google"))
    try:
        return sdk.run(data)
    except defer_core.PermanentTaskFailure as error:
        raise PermanentTaskFailure(*error.args) from error
    except defer_core.SingularTaskFailure as error:
        raise SingularTaskFailure(*error.args) from error


def _run_ours(data: bytes, delivery: Delivery) -> None:
    outcome = execute(data, delivery)
    if outcome is Outcome.RETRY:
        raise SingularTaskFailure("defer: to be tried again")
    if outcome is Outcome.PERMANENT:
        raise PermanentTaskFailure("defer: failed for good")


class _TooLargeError(Exception):
    """The body is longer than `max_body`."""


_arrived: ContextVar[tuple[bytes, Delivery]] = ContextVar("defer_google_arrived")


def _run_arrived() -> Any:
    return run(*_arrived.get())


_CALL_US = sdk.serialize(_run_arrived)
"""What the SDK's handler is given to unpickle: a call of `run`, whatever has arrived."""


class _Body:
    """The input of a request. The SDK reads it once its checks are passed, and gets `_CALL_US` for it."""

    def __init__(self, environ: Environ) -> None:
        self._environ = environ

    def read(self, size: int) -> bytes:
        if size > current().max_body:
            raise _TooLargeError
        delivery = delivery_of(EnvironHeaders(self._environ), _DOOR)
        _arrived.set((self._environ["wsgi.input"].read(size), delivery))
        return bytes(_CALL_US)


_DOOR = AppEngineDoor()


class Handler(sdk.Handler):
    """The SDK's handler: its checks come first. A method other than POST gets an answer, and cron its sweep."""

    def run_from_request(self, environ: Environ) -> tuple[str, HTTPStatus, list[tuple[str, str]]]:
        """The SDK's, for our bodies too."""
        try:
            # not every server says what it is, and the SDK asks
            return super().run_from_request({"SERVER_SOFTWARE": "", **environ, "wsgi.input": _Body(environ)})
        except _TooLargeError:
            return "The body is too large.", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, [("Content-Type", "text/plain")]

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "POST":
            return send(handle(request_of(environ)), start_response)
        answer: Iterable[bytes] = super().__call__(environ, start_response)
        return answer


application = Handler()
