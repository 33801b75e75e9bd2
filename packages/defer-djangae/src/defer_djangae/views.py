"""`djangae.views`: App Engine's warmup, start and stop requests, and a cron job that clears sessions."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from django.conf import settings
from django.dispatch import Signal
from django.http import HttpRequest, HttpResponse

from .decorators import internal_only, task_only

module_started = Signal()
module_stopped = Signal()


@internal_only
def warmup(request: HttpRequest) -> HttpResponse:
    """Import the URLs, views and models of every app."""
    from django.apps import apps

    for app in apps.get_app_configs():
        for name in ("urls", "views", "models"):
            if find_spec(f"{app.name}.{name}"):
                import_module(f"{app.name}.{name}")
    return HttpResponse("OK")


@internal_only
def start(request: HttpRequest) -> HttpResponse:
    """Signal that an instance starts."""
    module_started.send(sender=__name__, request=request)
    return HttpResponse("OK")


@internal_only
def stop(request: HttpRequest) -> HttpResponse:
    """Signal that an instance stops."""
    module_stopped.send(sender=__name__, request=request)
    return HttpResponse("OK")


@task_only
def clearsessions(request: HttpRequest) -> HttpResponse:
    """Delete expired sessions."""
    engine: Any = import_module(settings.SESSION_ENGINE)
    engine.SessionStore.clear_expired()
    return HttpResponse("OK")
