"""`djangae.tasks.environment`: the task that the current request delivers.

The middleware keeps App Engine's headers of each request; a task of defer is known without it, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from asgiref.local import Local

from defer_core import current_delivery
from defer_core.spi import on_app_engine, on_development_server

from .environment import application_id

MIDDLEWARE = (
    "djangae.tasks.middleware.task_environment_middleware",
    "djangae.tasks.middleware.TaskEnvironmentMiddleware",
)
HEADERS = {
    "task_name": "HTTP_X_APPENGINE_TASKNAME",
    "queue_name": "HTTP_X_APPENGINE_QUEUENAME",
    "task_execution_count": "HTTP_X_APPENGINE_TASKEXECUTIONCOUNT",
    "task_retry_count": "HTTP_X_APPENGINE_TASKRETRYCOUNT",
    "is_cron": "HTTP_X_APPENGINE_CRON",
}
_TASK_ENV = Local()
LOCATIONS = {
    "b": "asia-northeast1", "d": "us-east4", "e": "europe-west1", "f": "australia-southeast1", "g": "europe-west2",
    "h": "europe-west3", "i": "southamerica-east1", "j": "asia-south1", "k": "northamerica-northeast1", "m": "us-west2",
    "n": "asia-east2", "o": "europe-west6", "p": "us-east1", "s": "us-central1", "u": "asia-northeast2",
    "v": "asia-northeast3", "zas": "asia-southeast1", "zde": "asia-east1", "zet": "asia-southeast2",
    "zlm": "europe-central2", "zuw": "us-west1", "zwm": "us-west3", "zwn": "us-west4",
}  # fmt: skip
"""The region of each prefix of application ids."""


@contextmanager
def of_request(meta: Mapping[str, Any]) -> Iterator[None]:
    """Make the headers of a request the task environment inside a `with` block."""
    trusted = headers_are_googles()
    for name, header in HEADERS.items():
        setattr(_TASK_ENV, name, meta.get(header) if trusted else None)
    try:
        yield
    finally:
        for name in HEADERS:
            if hasattr(_TASK_ENV, name):  # unless an inner request has removed it
                delattr(_TASK_ENV, name)


def headers_are_googles() -> bool:
    """Tell whether to trust App Engine's headers: on App Engine, which replaces those of requests from outside, in
    development and in tests. Anyone can send them elsewhere; an authenticated task does not need them."""
    from defer_django.conf import in_tests

    return on_app_engine() or on_development_server() or in_tests()


def _noted(name: str) -> Any:
    """Return what the middleware has kept. Raises ImproperlyConfigured without the middleware."""
    if not hasattr(_TASK_ENV, name):
        _check_middleware()
    return getattr(_TASK_ENV, name, None)


def _check_middleware() -> None:
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured

    if not any(each in settings.MIDDLEWARE for each in MIDDLEWARE):
        raise ImproperlyConfigured(
            f"Add {MIDDLEWARE[1]!r} to MIDDLEWARE: djangae.tasks.environment reads what it keeps."
        )


def _count(text: Any) -> int | None:
    try:
        return int(text)
    except (TypeError, ValueError):
        return None


def is_in_task() -> bool:
    """Tell whether the request is a task."""
    return current_delivery() is not None or bool(_noted("task_name"))


def is_in_cron() -> bool:
    """Tell whether the request is a cron job."""
    return current_delivery() is None and bool(_noted("is_cron"))


def task_name() -> str | None:
    """Return the task's short name; None outside a task."""
    delivery = current_delivery()
    return delivery.task_name if delivery is not None else _noted("task_name")


def task_queue_name() -> str | None:
    """Return the short name of the task's queue, `default` if it is unknown; None outside a task."""
    delivery = current_delivery()
    if delivery is not None:
        return delivery.queue or "default"
    return (_noted("queue_name") or "default") if is_in_task() else None


def task_retry_count() -> int | None:
    """Return the number of earlier attempts; None outside a task, or if it is unknown."""
    delivery = current_delivery()
    return delivery.retry_count if delivery is not None else _count(_noted("task_retry_count"))


def task_execution_count() -> int | None:
    """Return the number of earlier attempts that were answered, 0 if it is unknown; None outside a task."""
    delivery = current_delivery()
    if delivery is not None:
        return delivery.execution_count or 0
    return (_count(_noted("task_execution_count")) or 0) if is_in_task() else None


def tasks_location(app_id_with_prefix: str | None = None) -> str | None:
    """Return the region of Cloud Tasks for an application id; None if its prefix is unknown."""
    return LOCATIONS.get((app_id_with_prefix or application_id()).partition("~")[0])
