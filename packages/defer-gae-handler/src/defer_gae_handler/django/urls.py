"""URLs, for `path("_ah/queue/", include("defer_gae_handler.django.urls"))`."""

from __future__ import annotations

from django.urls import path

from .views import deferred_handler

urlpatterns = [path("deferred", deferred_handler, name="tasks_deferred_handler")]
