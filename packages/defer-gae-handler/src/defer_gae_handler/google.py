"""Google's deferred handler, wrapped: its checks, its names and its defaults, for our bodies and its own.

    from defer_gae_handler import google as deferred      # was: from google.appengine.ext import deferred

Its own bodies are pickles, which are unpickled here as they are there: anyone who can add to the queue can run code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any

import defer_core
from defer_core import Delivery, Task, TaskHandle
from defer_core.spi import current, is_framed, require_extras, run_body, sdk_failure
from defer_core.spi import serialize as body_of  # the SDK has a function of that name, too

from .attempt import delivery_of
from .authenticators.appengine import AppEngineHeaders
from .handler import handle
from .request import TEXT, EnvironHeaders, read_whole
from .wsgi import Environ, StartResponse, request_of, send

require_extras("appengine")
from google.appengine.ext.deferred import deferred as sdk  # noqa: E402 (after the check that it is installed)
from google.appengine.ext.deferred.deferred import (  # noqa: E402
    Error,
    PermanentTaskFailure,
    SingularTaskFailure,
    invoke_member,
    set_log_level,
)

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
    """Call `defer_core.defer` with the SDK's defaults: `_transactional=False`, and `_url=None` for the queue's URL."""
    kwargs["_transactional"] = bool(kwargs.get("_transactional", False))
    if "_url" in kwargs and kwargs["_url"] is None:
        kwargs["_url"] = f"/_ah/queue/{kwargs.get('_queue') or 'default'}"
    return defer_core.defer(obj, *args, **kwargs)


def serialize(obj: Callable[..., Any], /, *args: Any, **kwargs: Any) -> bytes:
    """Return the body of a task that calls `obj(*args, **kwargs)`, however large."""
    return body_of(Task(func=obj, args=args, kwargs=kwargs))


def run(data: bytes, delivery: Delivery | None = None) -> Any:
    """Run a body of ours or of the SDK's and return the result of its callable. Raises the SDK's two failures, and
    anything that the task raises."""
    if is_framed(data):
        return run_body(data, delivery or Delivery(target="google"))
    try:
        return sdk.run(data)
    except (defer_core.PermanentTaskFailure, defer_core.SingularTaskFailure) as error:
        raise sdk_failure(error) from error


class _TooLargeError(Exception):
    """The body is longer than `max_body`."""


class _CutOffError(Exception):
    """The body is missing or incomplete."""


_arrived: ContextVar[tuple[bytes, Delivery]] = ContextVar("defer_google_arrived")


def _run_arrived() -> Any:
    return run(*_arrived.get())


_CALL_US = sdk.serialize(_run_arrived)
"""The pickle that the SDK's handler gets in place of the body: a call of `run` with the body that has arrived."""


_AUTHENTICATOR = AppEngineHeaders()


class _Body:
    """The input of a request. The SDK reads it after its checks, and gets `_CALL_US`."""

    def __init__(self, environ: Environ) -> None:
        self._environ = environ

    def read(self, size: int) -> bytes:
        if size > current().max_body:
            raise _TooLargeError
        body = read_whole(self._environ["wsgi.input"].read, size)
        if not body or len(body) < size:
            raise _CutOffError
        _arrived.set((body, delivery_of(EnvironHeaders(self._environ), _AUTHENTICATOR)))
        return bytes(_CALL_US)


class Handler(sdk.Handler):
    """The SDK's handler, whose checks come first. Methods other than POST are answered, cron with a sweep."""

    def run_from_request(self, environ: Environ) -> tuple[str, HTTPStatus, list[tuple[str, str]]]:
        """Run a body of ours as well as of the SDK's."""
        try:
            # the SDK needs SERVER_SOFTWARE, which not every server sets
            return super().run_from_request({"SERVER_SOFTWARE": "", **environ, "wsgi.input": _Body(environ)})
        except _TooLargeError:
            return "The body is too large.", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, [*TEXT.items()]
        except _CutOffError:
            return "The body is incomplete.", HTTPStatus.BAD_REQUEST, [*TEXT.items()]

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "POST":
            return send(handle(request_of(environ)), start_response)
        answer: Iterable[bytes] = super().__call__(environ, start_response)
        return answer


application = Handler()
