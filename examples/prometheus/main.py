"""A shop in one file whose tasks Prometheus watches: /metrics tells how they are."""

from __future__ import annotations

import sys

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.views.decorators.csrf import csrf_exempt
from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

settings.configure(
    SECRET_KEY="an-example-that-guards-nothing-" + "shop" * 8,
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["defer_django", "defer_iteration"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.sqlite3", "OPTIONS": {"timeout": 30}}},
    DEFER={"TRANSPORT": "local"},
)
django.setup()

# All that it takes: defer sees that this process has loaded OpenTelemetry.
metrics.set_meter_provider(MeterProvider(metric_readers=[PrometheusMetricReader()]))

from defer_core import PermanentTaskFailure, defer  # noqa: E402 (Django is set up first)
from defer_iteration import defer_iteration_with_finalize  # noqa: E402
from defer_iteration.sources import numbers  # noqa: E402


def greet(name: str) -> None:
    """A task that succeeds."""
    print(f"Hello, {name}.", flush=True)


def refuse() -> None:
    """A task that becomes a dead letter."""
    raise PermanentTaskFailure("This is part of the example.")


def count(number: int) -> None:
    """What is called for each row of an iteration."""


def counted() -> None:
    """What is called when all rows are done."""
    print("All rows are counted.", flush=True)


@csrf_exempt
def shop(request: HttpRequest) -> HttpResponse:
    """POST / defers one of each."""
    if request.method != "POST":
        return HttpResponse("POST here\n")
    defer(greet, "world")
    defer(refuse)
    defer_iteration_with_finalize(numbers(0, 1000), count, counted, _shards=2)
    return HttpResponse("deferred\n")


def scraped(request: HttpRequest) -> HttpResponse:
    """GET /metrics is for Prometheus."""
    return HttpResponse(generate_latest(), content_type=CONTENT_TYPE_LATEST)


urlpatterns = [
    path("", shop),
    path("metrics", scraped),
    path("_ah/queue/", include("defer_gae_handler.django.urls")),
]
application = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
