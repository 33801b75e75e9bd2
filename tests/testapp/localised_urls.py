"""A project whose URLs have the language in front, all of them."""

from __future__ import annotations

from django.conf.urls.i18n import i18n_patterns
from django.urls import path
from django.utils.translation import pgettext_lazy

from .other_urls import handler

urlpatterns = i18n_patterns(path(pgettext_lazy("a URL", "tasks/deferred/"), handler, name="tasks_deferred_handler"))
