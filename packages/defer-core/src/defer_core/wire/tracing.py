"""The trace context of a task, by OpenTelemetry, if the process has loaded it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any


def outgoing() -> dict[str, str]:
    """Return the caller's trace context as W3C headers; empty without OpenTelemetry."""
    carrier: dict[str, str] = {}
    if is_loaded():
        from opentelemetry.propagate import inject

        inject(carrier)
    return carrier


def is_loaded() -> bool:
    """Return True if this process traces."""
    return "opentelemetry.trace" in sys.modules


def span(trace: Mapping[str, str], name: str) -> AbstractContextManager[Any]:
    """Return a span, for a `with` block around a task, that continues the trace of its `defer()`."""
    from opentelemetry import trace as otel
    from opentelemetry.propagate import extract

    tracer = otel.get_tracer("defer")
    started: AbstractContextManager[Any] = tracer.start_as_current_span(
        name, context=extract(trace), kind=otel.SpanKind.CONSUMER
    )
    return started
