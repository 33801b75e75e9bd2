"""`djangae.tasks.urls`: `deferred/`, under the name by which `defer()` finds it."""

from __future__ import annotations

from django.urls import path

from .handlers import deferred_handler

urlpatterns = [path("deferred/", deferred_handler, name="tasks_deferred_handler")]
