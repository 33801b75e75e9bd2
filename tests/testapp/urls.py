"""URLs of the Django tests; the handler's under the name that Djangae gave it, once its package has them."""

from __future__ import annotations

from importlib.util import find_spec

from django.contrib import admin
from django.urls import include, path

urlpatterns = [path("admin/", admin.site.urls)]
if find_spec("defer_gae_handler.django") is not None:
    urlpatterns.append(path("_ah/queue/", include("defer_gae_handler.django.urls")))
