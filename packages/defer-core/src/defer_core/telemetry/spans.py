"""Spans by OpenTelemetry's conventions for messaging: `send default` around `defer()`, `process default` around a run.

A task carries the context of the span that deferred it, and its run goes on with that trace: the span of the run is a
child of that span, and linked to it and to the request that brought the task.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

from ..__about__ import __version__
from ..text import one_line, traceback_of
from . import attributes


def is_loaded() -> bool:
    """Return True if this process traces, or might."""
    return "opentelemetry.trace" in sys.modules


def outgoing() -> dict[str, str]:
    """Return the caller's trace context as W3C headers; empty without OpenTelemetry."""
    carrier: dict[str, str] = {}
    if is_loaded():
        from opentelemetry.propagate import inject

        inject(carrier)
    return carrier


@contextmanager
def going_on(trace: Mapping[str, str]) -> Iterator[None]:
    """Go on with a trace that `outgoing` has returned, in a `with` block; with the surrounding one if it is empty."""
    if not (trace and is_loaded()):
        yield
        return
    from opentelemetry.context import attach, detach, get_current
    from opentelemetry.propagate import extract

    token = attach(extract(trace, get_current()))
    try:
        yield
    finally:
        detach(token)


@contextmanager
def sending(queue: str, label: str) -> Iterator[Any]:
    """Open the span of a `defer()`, or of many tasks deferred at once, for a `with` block. An exception is recorded."""
    from opentelemetry.trace import SpanKind

    given = attributes.operation("send", queue, label)
    with _tracer().start_as_current_span(f"send {queue}", kind=SpanKind.PRODUCER, attributes=given, **_BY_US) as span:
        try:
            yield span
        except Exception as error:
            _failed(span, error)
            raise


def sent(span: Any, *, name: str | None, size: int, status: str) -> None:
    """Add to the span of one `defer()` what is known at its end."""
    given = {attributes.MESSAGE_ID: name, attributes.BODY_SIZE: size, attributes.STATUS: status}
    span.set_attributes({key: value for key, value in given.items() if value is not None})


def sent_many(span: Any, count: int) -> None:
    """Add to the span of many tasks how many there were."""
    span.set_attribute(attributes.BATCH_SIZE, count)


@contextmanager
def processing(
    trace: Mapping[str, str], queue: str, label: str, *, name: str, size: int, attempt: int
) -> Iterator[Any]:
    """Open the span of an attempt, for a `with` block, with the trace that its task carries. `ended` closes what is
    said of it."""
    from opentelemetry.context import get_current
    from opentelemetry.propagate import extract
    from opentelemetry.trace import Link, SpanKind, get_current_span

    given = attributes.operation("process", queue, label) | {
        attributes.MESSAGE_ID: name,
        attributes.BODY_SIZE: size,
        attributes.ATTEMPT: attempt,
    }
    context = extract(trace, get_current())
    carried, around = (get_current_span(each).get_span_context() for each in (context, None))
    linked = [each for each in (carried, around) if each.is_valid] if carried.span_id != around.span_id else []
    with _tracer().start_as_current_span(
        f"process {queue or 'default'}",
        context=context,
        kind=SpanKind.CONSUMER,
        attributes=given,
        links=[Link(each) for each in linked],
        **_BY_US,
    ) as span:
        yield span


def ended(span: Any, outcome: str, error: BaseException | None) -> None:
    """Add to the span of an attempt how it has ended, and the error of one that has failed."""
    span.set_attribute(attributes.OUTCOME, outcome)
    if error is not None:
        _failed(span, error)


_BY_US: dict[str, Any] = {"record_exception": False, "set_status_on_exception": False}
"""An exception says nothing about an attempt: a task may ask to be run again. So it is recorded here, or not."""


def _failed(span: Any, error: BaseException) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute(attributes.ERROR, attributes.error_type(error))
    with suppress(Exception):  # of the exception's own `__str__`
        message = one_line(error)
        said = {"exception.message": message, "exception.stacktrace": traceback_of(error)}
        span.record_exception(error, attributes=said)
        span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {message}"))


def _tracer() -> Any:
    from opentelemetry.trace import get_tracer_provider

    return _tracer_of(get_tracer_provider())


@lru_cache(maxsize=1)
def _tracer_of(provider: Any) -> Any:
    return provider.get_tracer("defer", __version__)
