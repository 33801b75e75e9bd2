"""Sites whose one request lasts until its process is told to stop: WSGI, ASGI without a lifespan, and Django's."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from defer_core import install_signal_handlers, is_stopping, with_signal_handlers

LONGEST = 40.0
"""Seconds after which the request gives up."""
STARTED = Path("started")


def until_asked() -> bytes:
    """Wait, and say whether this process was told to stop."""
    STARTED.touch()
    until = time.monotonic() + LONGEST
    while not is_stopping() and time.monotonic() < until:
        time.sleep(0.02)
    return str(is_stopping()).encode()


if os.environ.get("CALL_ALONE"):
    install_signal_handlers()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The WSGI site."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [until_asked()]


async def bare_asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The ASGI site."""
    if scope["type"] != "http":
        raise ValueError("no lifespan here")
    body = await asyncio.to_thread(until_asked)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@cache
def django_asgi() -> Any:
    """A Django site's ASGI application: its view runs in a thread."""
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import HttpRequest, HttpResponse
    from django.urls import path

    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(until_asked())

    class Urls:
        urlpatterns = (path("", view),)

    settings.configure(SECRET_KEY="k" * 50, ROOT_URLCONF=Urls, ALLOWED_HOSTS=["*"])
    return get_asgi_application()


def __getattr__(name: str) -> Any:
    if name == "asgi":
        return with_signal_handlers(bare_asgi)
    if name == "django_site":
        return with_signal_handlers(django_asgi())
    raise AttributeError(name)
