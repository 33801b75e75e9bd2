"""The URLs of that project."""

from __future__ import annotations

from django.urls import include, path

urlpatterns = [path("_ah/queue/", include("defer_gae_handler.django.urls"))]
