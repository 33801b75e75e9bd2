"""The trace of a `defer()` goes on in its task."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import services

from defer_core import defer
from defer_core.testing import drain, in_memory
from defer_core.wire.envelope import decode
from defer_core.wire.frame import unwrap

TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
seen: list[Any] = []


def note() -> None:
    trace = services.library("opentelemetry.trace")
    seen.append(trace.get_current_span().get_span_context())


def test_a_task_continues_the_trace_of_its_caller() -> None:
    trace = services.library("opentelemetry.trace")
    caller = trace.SpanContext(trace_id=TRACE, span_id=SPAN, is_remote=False, trace_flags=trace.TraceFlags(1))
    seen.clear()
    with in_memory() as queue:
        with trace.use_span(trace.NonRecordingSpan(caller)):
            defer(note)
        sealed = decode(unwrap(queue.queued()[0].message.body))
        assert sealed.trace == {"traceparent": f"00-{TRACE:032x}-{SPAN:016x}-01"}
        drain()
        defer(note)
        assert decode(unwrap(queue.queued()[0].message.body)).trace == {}
        drain()
    assert [each.trace_id for each in seen] == [TRACE, 0]


def test_nothing_is_loaded_for_the_sake_of_traces() -> None:
    code = (
        "import sys, builtins\nfrom defer_core import defer\nfrom defer_core.testing import drain, in_memory\n"
        "with in_memory():\n    defer(print, 'ran')\n    drain()\n"
        "print(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.split() == ["ran", "False"]
