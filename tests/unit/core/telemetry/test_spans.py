"""The trace of a `defer()` goes on in its task, and in what that defers; the spans are those of the conventions."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import services
from telemetry import Telemetry, recording

from defer_core import (
    Call,
    Delivery,
    Outcome,
    PermanentTaskFailure,
    SingularTaskFailure,
    adefer,
    config,
    defer,
    defer_many,
    execute,
)
from defer_core.errors import CallableError, TaskExitedError, TransportUnavailableError
from defer_core.record import State
from defer_core.spi import rerun
from defer_core.testing import MemoryStore, MemoryTransport, configured, drain, in_memory
from defer_core.transports.base import Message
from defer_core.wire.envelope import decode
from defer_core.wire.frame import unwrap

TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
HERE = f"{__name__}."
seen: list[Any] = []


def note() -> None:
    trace = services.library("opentelemetry.trace")
    seen.append(trace.get_current_span().get_span_context())


def go_on() -> None:
    defer(note, _queue="others")


async def go_on_as_a_coroutine() -> None:
    await adefer(note, _queue="others")


def fail(error: Exception) -> None:
    raise error


def leave() -> None:
    sys.exit(3)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("it cannot even be printed")


@pytest.fixture
def told() -> Iterator[Telemetry]:
    seen.clear()
    with recording() as telemetry:
        yield telemetry


@pytest.fixture
def queue() -> Iterator[MemoryTransport]:
    with in_memory(store=MemoryStore(), keys=["current"]) as transport:
        yield transport


def body_of(queue: MemoryTransport, func: Callable[..., Any], *args: Any) -> bytes:
    defer(func, *args)
    body = queue.queued()[-1].message.body
    queue.clear()
    return body


def delivery(retries: int = 0) -> Delivery:
    return Delivery(task_name="t", queue="q", retry_count=retries)


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


def test_one_trace_goes_through_the_task_and_what_it_defers(told: Telemetry, queue: MemoryTransport) -> None:
    with told.tracer.start_as_current_span("GET /order"):
        defer(go_on)
    drain()
    spans = told.spans()
    assert [(each.name, each.kind.name) for each in spans] == [
        ("GET /order", "INTERNAL"),
        ("send default", "PRODUCER"),
        ("process default", "CONSUMER"),
        ("send others", "PRODUCER"),
        ("process others", "CONSUMER"),
    ]
    assert [each.parent.span_id for each in spans[1:]] == [each.context.span_id for each in spans[:-1]]
    assert {each.context.trace_id for each in spans} == {spans[0].context.trace_id}
    assert seen == [spans[-1].context]
    assert {each.status.status_code.name for each in spans} == {"UNSET"}


def test_a_coroutine_is_in_the_trace_too(told: Telemetry, queue: MemoryTransport) -> None:
    defer(go_on_as_a_coroutine)
    drain()
    assert [each.name for each in told.spans()] == ["send default", "process default", "send others", "process others"]
    assert {each.context.trace_id for each in told.spans()} == {seen[0].trace_id}


def test_a_task_that_its_transport_runs_at_once_is_not_linked_to_its_own_parent(told: Telemetry) -> None:
    with configured(transport="immediate", store=None):
        defer(note)
    sent, run = told.spans()
    assert (run.parent.span_id, run.links) == (sent.context.span_id, ())


def test_a_send_has_the_attributes_of_the_conventions(told: Telemetry, queue: MemoryTransport) -> None:
    handle = defer(note, _queue="mail")
    assert dict(told.span("send mail").attributes) == {
        "messaging.system": "defer",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "mail",
        "messaging.message.id": handle.name,
        "messaging.message.body.size": handle.size,
        "code.function.name": f"{HERE}note",
        "defer.status": "sent",
    }


def test_a_run_has_the_attributes_of_the_conventions(told: Telemetry, queue: MemoryTransport) -> None:
    body = body_of(queue, note)
    execute(body, delivery(retries=2))
    assert dict(told.span("process q").attributes) == {
        "messaging.system": "defer",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "q",
        "messaging.message.id": "t",
        "messaging.message.body.size": len(body),
        "code.function.name": f"{HERE}note",
        "defer.attempt": 3,
        "defer.outcome": "done",
    }


def test_a_run_is_linked_to_the_request_that_brought_it(told: Telemetry, queue: MemoryTransport) -> None:
    body = body_of(queue, note)
    with told.tracer.start_as_current_span("POST /_ah/queue/deferred") as request:
        execute(body, delivery())
    sent, run = told.span("send default"), told.span("process q")
    assert run.parent.span_id == sent.context.span_id
    linked = [each.context.span_id for each in run.links]
    assert linked == [sent.context.span_id, request.get_span_context().span_id]


def test_a_task_of_a_process_that_does_not_trace_runs_in_the_trace_of_its_request(queue: MemoryTransport) -> None:
    body = body_of(queue, note)
    with recording() as told:
        with told.tracer.start_as_current_span("POST") as request:
            execute(body, delivery())
        assert told.span("process q").parent == request.get_span_context()
        execute(body, delivery())
        assert told.spans("process q")[1].parent is None


def test_each_attempt_has_a_span_of_its_own_under_the_same_parent(told: Telemetry, queue: MemoryTransport) -> None:
    body = body_of(queue, fail, ValueError("no"))
    for retries in range(2):
        with pytest.raises(ValueError):
            execute(body, delivery(retries))
    runs = told.spans("process q")
    assert [each.attributes["defer.attempt"] for each in runs] == [1, 2]
    assert {each.parent.span_id for each in runs} == {told.span("send default").context.span_id}


def test_a_dead_letter_is_run_again_in_its_trace(told: Telemetry, queue: MemoryTransport) -> None:
    body = body_of(queue, fail, PermanentTaskFailure("never"))
    execute(body, delivery())
    store = config.current().the_store
    assert store is not None
    [letter] = store.list(State.DEAD)
    with told.tracer.start_as_current_span("POST /admin/"):
        rerun(letter.id, store)
    drain()
    first, again = told.spans("process q")
    assert (again.parent, again.context.trace_id) == (first.parent, first.context.trace_id)


@pytest.mark.parametrize(("error", "outcome"), [(ValueError("no"), "failed"), (PermanentTaskFailure("never"), "dead")])
def test_a_failure_is_recorded_once(told: Telemetry, queue: MemoryTransport, error: Exception, outcome: str) -> None:
    with suppress(ValueError):
        execute(body_of(queue, fail, error), delivery())
    run = told.span("process q")
    kind = attributes_type(error)
    assert (run.attributes["error.type"], run.attributes["defer.outcome"]) == (kind, outcome)
    assert (run.status.status_code.name, run.status.description) == ("ERROR", f"{type(error).__name__}: {error}")
    [event] = run.events
    assert (event.name, event.attributes["exception.type"]) == ("exception", kind)
    assert "in fail\n" in event.attributes["exception.stacktrace"]


def attributes_type(error: Exception) -> str:
    return "ValueError" if type(error) is ValueError else "defer_core.errors.PermanentTaskFailure"


def test_an_exit_is_recorded_as_the_failure_that_it_is(told: Telemetry, queue: MemoryTransport) -> None:
    with pytest.raises(TaskExitedError):
        execute(body_of(queue, leave), delivery())
    assert told.span("process q").attributes["error.type"] == "defer_core.errors.TaskExitedError"


def test_a_task_that_asks_to_be_run_again_has_not_failed(told: Telemetry, queue: MemoryTransport) -> None:
    assert execute(body_of(queue, fail, SingularTaskFailure("later")), delivery()) is Outcome.RETRY
    run = told.span("process q")
    assert run.attributes["defer.outcome"] == "retry"
    assert (run.status.status_code.name, run.events, "error.type" in run.attributes) == ("UNSET", (), False)


def test_what_is_forbidden_here_is_recorded_in_its_trace(told: Telemetry, queue: MemoryTransport) -> None:
    body = body_of(queue, note)
    with in_memory(store=MemoryStore(), keys=["current"], callables=["shop.*"]):
        assert execute(body, delivery()) is Outcome.PERMANENT
    run = told.span("process q")
    assert run.context.trace_id == told.span("send default").context.trace_id
    assert run.attributes["error.type"] == "defer_core.errors.CallableForbiddenError"
    assert "code.function.name" not in run.attributes


def test_the_trace_of_a_body_that_does_not_verify_is_not_believed(told: Telemetry, queue: MemoryTransport) -> None:
    body = body_of(queue, note)
    with in_memory(store=MemoryStore(), keys=["another"]):
        assert execute(body, delivery()) is Outcome.RETRY
    run = told.span("process q")
    assert (run.parent, run.links, run.attributes["defer.outcome"]) == (None, (), "retry")


def test_an_error_that_cannot_be_printed_does_no_harm(told: Telemetry, queue: MemoryTransport) -> None:
    with pytest.raises(Unprintable):
        execute(body_of(queue, fail, Unprintable()), delivery())
    assert told.span("process q").attributes["error.type"] == f"{HERE}Unprintable"


def test_text_that_no_exporter_takes_is_escaped(told: Telemetry, queue: MemoryTransport) -> None:
    with pytest.raises(ValueError):
        execute(body_of(queue, fail, ValueError("\ud800\0")), delivery())
    run = told.span("process q")
    texts = [run.status.description, *run.events[0].attributes.values()]
    assert all("\0" not in each and each.encode() for each in texts)


def test_a_defer_that_fails_is_recorded(told: Telemetry, queue: MemoryTransport) -> None:
    with pytest.raises(CallableError):
        defer(lambda: None)
    send = told.span("send default")
    assert send.attributes["error.type"] == "defer_core.errors.CallableError"
    assert (send.status.status_code.name, len(send.events)) == ("ERROR", 1)


def test_a_task_that_waits_for_the_sweep_says_so(
    told: Telemetry, queue: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_down(message: Message) -> str:
        raise TransportUnavailableError

    monkeypatch.setattr(queue, "send", is_down)
    defer(note)
    send = told.span("send default")
    assert (send.attributes["defer.status"], send.status.status_code.name) == ("waits for the sweep", "UNSET")


def test_a_transaction_is_left_with_the_trace_of_the_defer_in_it(told: Telemetry) -> None:
    with in_memory(store=(store := MemoryStore())):
        with store.transaction():
            defer(note)
        drain()
    send = told.span("send default")
    assert send.attributes["defer.status"] == "waits for commit"
    assert [each.trace_id for each in seen] == [send.context.trace_id]


def test_many_tasks_have_one_span_that_counts_them(told: Telemetry, queue: MemoryTransport) -> None:
    defer_many(note, [(), Call(), {}])
    drain()
    send = told.span("send default")
    assert send.attributes["messaging.batch.message_count"] == 3
    assert send.attributes["code.function.name"] == f"{HERE}note"
    assert "messaging.message.id" not in send.attributes
    assert {each.parent.span_id for each in told.spans("process default")} == {send.context.span_id}
    assert len(seen) == 3


def test_nothing_is_loaded_for_the_sake_of_traces() -> None:
    code = (
        "import sys, builtins\nfrom defer_core import defer\nfrom defer_core.testing import drain, in_memory\n"
        "with in_memory():\n    defer(print, 'ran')\n    drain()\n"
        "print(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.split() == ["ran", "False"]


def test_without_opentelemetry_nothing_is_missed() -> None:
    code = (
        "import sys\nsys.modules['opentelemetry'] = None\n"
        "from defer_core import defer, defer_many\nfrom defer_core.spi import sweep\n"
        "from defer_core.testing import MemoryStore, drain, in_memory\n"
        "with in_memory(store=MemoryStore()):\n"
        "    defer(print, 'ran')\n    defer_many(print, [('twice',)])\n    drain()\n    sweep()\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.split() == ["ran", "twice"]


def test_the_api_without_an_sdk_does_nothing() -> None:
    code = (
        "from opentelemetry import metrics, trace\n"
        "from defer_core import defer\nfrom defer_core.spi import sweep\n"
        "from defer_core.testing import MemoryStore, drain, in_memory\n"
        "with in_memory(store=MemoryStore()):\n    defer(print, 'ran')\n    drain()\n    sweep()\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert (ran.stdout.split(), ran.stderr) == (["ran"], "")
