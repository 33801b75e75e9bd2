"""The trace context of a task, by OpenTelemetry, where the process has it loaded."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


def outgoing() -> dict[str, str]:
    """The caller's trace context as W3C headers; empty without OpenTelemetry."""
    carrier: dict[str, str] = {}
    if "opentelemetry.trace" in sys.modules:
        from opentelemetry.propagate import inject

        inject(carrier)
    return carrier


@contextmanager
def continued(trace: Mapping[str, str], name: str) -> Iterator[None]:
    """Run a task in a span that continues the trace of its `defer()`."""
    if not trace or "opentelemetry.trace" not in sys.modules:
        yield
        return
    from opentelemetry import trace as otel
    from opentelemetry.propagate import extract

    with otel.get_tracer("defer").start_as_current_span(name, context=extract(trace), kind=otel.SpanKind.CONSUMER):
        yield
