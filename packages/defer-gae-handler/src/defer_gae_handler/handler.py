"""One request: authenticate it, read it, run its task, answer."""

from __future__ import annotations

import inspect
import logging

from defer_core import Outcome, execute
from defer_core.spi import Config, attempt_fields, current, is_cut_off, logger, one_line, sweep

from .attempt import delivery_of
from .authenticators import Authenticator, AuthenticatorUnavailableError, configured_authenticators
from .authenticators.appengine import cron_refusal
from .authenticators.configured import NO_AUTHENTICATOR
from .request import Request, Response

log = logger("defer.handler")

_ANSWERS = {
    Outcome.DONE: Response.text(200, "done"),
    Outcome.RETRY: Response.text(408, "try again"),
    Outcome.PERMANENT: Response.text(200, "failed for good"),
}
_NOT_ALLOWED = Response.text(405, "post tasks", Allow="POST")
_TOO_LARGE = Response.text(413, "the body is too large")
_NO_BODY = Response.text(400, "the body is missing or incomplete")
_UNAVAILABLE = Response.text(503, "the sender cannot be authenticated now", **{"Retry-After": "10"})
_NO_AUTHENTICATOR = "; ".join(" ".join(line.split()) for line in NO_AUTHENTICATOR.splitlines())
SWEEP_BUDGET = 240.0
"""Seconds that the sweep of a cron request may take."""


def handle(request: Request, *, shown: bool = False) -> Response:
    """Answer one request of a queue.

    The exception of a failed task that is to be tried again propagates: the caller answers 500. Each failure is logged
    on `defer`, the first and the last of a task with their tracebacks, unless these are `shown` by the caller.
    """
    config = current()
    if request.method != "POST":
        return _sweep(request)
    authenticator = _authenticated(request, config)
    if isinstance(authenticator, Response):
        return authenticator
    body = _body(request, config.max_body)
    if isinstance(body, Response):
        return body
    return _ANSWERS[execute(body, delivery_of(request.headers, authenticator), shown=shown)]


def _sweep(request: Request) -> Response:
    """Sweep at a GET of App Engine's cron service; refuse anything else that is no POST."""
    if request.method != "GET" or request.headers.get("X-AppEngine-Cron") is None:
        return _NOT_ALLOWED
    refusal = cron_refusal(request)
    if refusal is not None:
        log.warning("A cron request to %s from %s was refused: %s", *_origin(request), refusal)
        return _forbidden(_public(refusal))
    report = sweep(budget=SWEEP_BUDGET)
    return Response.text(500 if report.counts["failed"] else 200, str(report))


def _authenticated(request: Request, config: Config) -> Authenticator | Response:
    """Return the authenticator that accepts the request, else the answer: 503 if one cannot decide, or 403."""
    unavailable, refusals = None, []
    for authenticator in configured_authenticators(config):
        try:
            refusal = authenticator.refusal(request)
        except AuthenticatorUnavailableError as error:
            unavailable = error
            continue
        if refusal is None:
            return authenticator
        refusals.append((authenticator.name, refusal))
    if unavailable is not None:
        _say(logging.ERROR, request, "unavailable", "cannot be authenticated now: %s", str(unavailable))
        return _UNAVAILABLE
    if not refusals:
        _say(logging.WARNING, request, "forbidden", "was refused: %s", _NO_AUTHENTICATOR)
        return _forbidden("no authenticator is configured")
    why = "; ".join(f"{name}: {refusal}" for name, refusal in refusals)
    _say(logging.WARNING, request, "forbidden", "was refused: no authenticator accepted it (%s)", why)
    told = "; ".join(f"{name}: {_public(refusal)}" for name, refusal in refusals)
    return _forbidden(f"no authenticator accepted the request ({told})")


def _public(refusal: str) -> str:
    """Leave out what stands in parentheses: strangers are not told which account or audience we expect."""
    return refusal.partition(" (")[0]


def _forbidden(why: str) -> Response:
    return Response.text(403, f"forbidden: {one_line(why, 500)}")


def _origin(request: Request) -> tuple[str, str]:
    """Return path and address, for the log."""
    return request.path, request.remote_addr or "nowhere"


def _say(level: int, request: Request, outcome: str, text: str, error: str) -> None:
    """Log one line for a request that runs no task. Which attempt it is nothing has proved."""
    extra = attempt_fields(delivery_of(request.headers, None), outcome, error=error)
    log.log(level, f"A task request to %s from %s {text}", *_origin(request), error, extra=extra)


def _body(request: Request, limit: int) -> bytes | Response:
    """Return the body, or the answer to one that is too large or incomplete: the queue sends that again."""
    said = request.headers.get("Content-Length") or ""
    if said and not (said.isascii() and said.isdigit()):
        return _refused(request, f"says {one_line(said, 30)} for its length", _NO_BODY)
    if said and (len(said) > 18 or int(said) > limit):
        return _refused(request, f"is {one_line(said, 30)} bytes long, over max_body ({limit})", _TOO_LARGE)
    try:
        body = _read(request, int(said) if said else limit + 1)
    except TypeError:  # a mistake of the caller's `read`
        raise
    except Exception as error:  # servers differ in what they raise for a truncated or malformed body
        return _refused(request, f"did not come whole: {one_line(repr(error))}", _NO_BODY)
    if len(body) > limit:
        return _refused(request, f"is longer than max_body ({limit})", _TOO_LARGE)
    # not every server (a2wsgi) tells the end of a body in chunks from that of the connection
    truncated = "Transfer-Encoding" in request.headers and is_cut_off(body)
    if truncated or not body or (said and len(body) != int(said)):
        return _refused(request, f"did not come whole: {len(body)} bytes{said and f' of {said}'}", _NO_BODY)
    return body


def _refused(request: Request, why: str, answer: Response) -> Response:
    level = logging.ERROR if answer is _TOO_LARGE else logging.WARNING  # a retry does not help
    _say(level, request, "refused", "%s.", why)
    return answer


def _read(request: Request, size: int) -> bytes:
    try:
        return request.read(size)
    except TypeError:
        if inspect.signature(request.read).parameters:
            raise
        return request.read()
