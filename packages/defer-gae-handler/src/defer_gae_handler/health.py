"""A WSGI application for uptime checks: 200 if the service is healthy, else 503."""

from __future__ import annotations

from collections.abc import Iterable

import defer_core

from .request import Response
from .wsgi import Environ, StartResponse, send

_NOT_ALLOWED = Response.text(405, "only GET and HEAD", Allow="GET, HEAD")
_HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-store"}


def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer 200 or 503 with an object of JSON: `healthy` and `reasons`."""
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return send(_NOT_ALLOWED, start_response)
    found = defer_core.health()
    return send(Response(found.status, _HEADERS, found.to_json().encode()), start_response)
