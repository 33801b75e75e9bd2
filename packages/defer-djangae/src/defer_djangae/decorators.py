"""`djangae.tasks.decorators`: views for tasks, cron jobs and App Engine alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper, wraps
from typing import Any

from django.conf import settings
from django.http import HttpResponseForbidden

from .task_environment import is_in_cron, is_in_task

View = Callable[..., Any]


def _only(view: View, allowed: Callable[[Any], bool]) -> View:
    @wraps(view)
    def guarded(request: Any, *args: Any, **kwargs: Any) -> Any:
        return view(request, *args, **kwargs) if allowed(request) else HttpResponseForbidden("Access denied.")

    return guarded


def task_only(view_function: View) -> View:
    """Answer 403 except to tasks and cron jobs."""
    return _only(view_function, lambda request: is_in_task() or is_in_cron())


def task_or_superuser_only(view_function: View) -> View:
    """Answer 403 except to tasks, cron jobs and superusers."""
    return _only(view_function, lambda request: is_superuser(request) or is_in_task() or is_in_cron())


def internal_only(view_function: View) -> View:
    """Answer 403 except to App Engine itself (0.1.0.*: warmup, start, stop)."""
    return _only(view_function, lambda request: (client_ip(request) or "").startswith("0.1.0."))


class csrf_exempt_if_task:
    """No CSRF check for tasks and cron jobs."""

    def __init__(self, view_function: View) -> None:
        update_wrapper(self, view_function)
        self.view = view_function

    def __call__(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        return self.view(request, *args, **kwargs)

    @property
    def csrf_exempt(self) -> bool:
        """Answer Django's middleware, for each request anew."""
        return is_in_task() or is_in_cron()

    @csrf_exempt.setter
    def csrf_exempt(self, value: bool) -> None:
        """Ignore the value that `functools.wraps` copies from a view."""


def is_superuser(request: Any) -> bool:
    """Tell whether a superuser is logged in."""
    user = getattr(request, "user", None)
    return bool(user and user.is_authenticated and user.is_superuser)


def client_ip(request: Any) -> str | None:
    """Return the address of the client, NUM_PROXIES from the end of X-Forwarded-For."""
    forwarded, proxies = request.META.get("HTTP_X_FORWARDED_FOR"), getattr(settings, "NUM_PROXIES", None)
    if not (forwarded and proxies):
        return request.META.get("REMOTE_ADDR")
    addresses = forwarded.split(",")
    return str(addresses[-min(proxies, len(addresses))]).strip()
