"""A project that has the handler under another path."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import path


def handler(request: HttpRequest) -> HttpResponse:
    """Stands for the real one."""
    return HttpResponse(status=500)


urlpatterns = [path("tasks/deferred/", handler, name="tasks_deferred_handler")]
