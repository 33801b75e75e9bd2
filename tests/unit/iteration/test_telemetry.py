"""OpenTelemetry sees an iteration as one trace, and each of its rows once."""

from __future__ import annotations

from typing import Any

import pytest
from telemetry import Telemetry, recording
from testapp import iterations
from testapp.models import Row
from unit.iteration.deliveries import Killed, deliver, finish, kill, on_row, poison

from defer_core.spi import clock, sweep
from defer_core.testing import drain
from defer_iteration import TimeoutException
from defer_iteration import defer_iteration_with_finalize as walk

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


@pytest.fixture
def told() -> Any:
    with recording() as telemetry:
        yield telemetry


def rows_counted(told: Telemetry) -> dict[Any, float]:
    return told.points("defer.iteration.rows", "code.function.name")


def hand_over_once() -> None:
    raise TimeoutException


def test_plan_shards_and_finalize_are_in_the_trace_of_the_caller(told: Telemetry, queue: Any, rows: Any) -> None:
    rows(10)
    on_row(3, hand_over_once)
    with told.tracer.start_as_current_span("POST /orders"):
        walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=2)
    drain(queue)
    assert iterations.finalized == [()]
    spans = {each.context.span_id: each for each in told.spans()}
    assert {each.context.trace_id for each in spans.values()} == {told.span("POST /orders").context.trace_id}
    runs = told.spans("process default")
    ran = [each.attributes["code.function.name"].rpartition(".")[2] for each in runs]
    assert sorted(ran) == ["run_finalize", "run_plan", "run_shard", "run_shard", "run_shard"]
    assert {spans[each.parent.span_id].name for each in runs} == {"send default"}
    assert {spans[each.parent.span_id].kind.name for each in runs} == {"PRODUCER"}


@pytest.mark.parametrize("options", [{}, {"_atomic": True}, {"_rebalance": True}])
def test_each_row_is_counted_by_the_callback(told: Telemetry, queue: Any, rows: Any, options: dict[str, Any]) -> None:
    rows(10)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=3, **options)
    drain(queue)
    assert rows_counted(told) == {"testapp.iterations.callback": 10}


@pytest.mark.parametrize("options", [{}, {"_atomic": True}])
def test_rows_in_batches_are_counted_one_by_one(
    told: Telemetry, queue: Any, rows: Any, options: dict[str, Any]
) -> None:
    keys = rows(10)
    poison(keys[6], times=1)
    walk(Row.objects.all(), iterations.batch_callback, iterations.finalize, _shards=1, _batch=4, **options)
    drain(queue)
    assert rows_counted(told) == {"testapp.iterations.batch_callback": 10}


def test_rows_of_an_attempt_that_was_killed_are_counted_when_they_are_checkpointed(
    told: Telemetry, queue: Any, rows: Any
) -> None:
    rows(6)
    start = clock.now()
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1)
    finish(queue, queue.queued()[0])
    on_row(4, kill)
    with pytest.raises(Killed):
        deliver(queue.queued()[0])
    queue.remove(queue.queued()[0])
    assert rows_counted(told) == {}
    with clock.replaced(lambda: start + 700):
        sweep()
        drain(queue)
    assert len(iterations.seen) == 9
    assert rows_counted(told) == {"testapp.iterations.callback": 6}


@pytest.mark.parametrize("options", [{}, {"_atomic": True}])
def test_rows_that_are_passed_again_are_counted_once(
    told: Telemetry, queue: Any, rows: Any, options: dict[str, Any]
) -> None:
    keys = rows(6)
    poison(keys[3], times=2)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1, **options)
    drain(queue)
    assert rows_counted(told) == {"testapp.iterations.callback": 6}


@pytest.mark.parametrize("lost", ["plan", "shard", "finalize"])
def test_what_the_sweep_requeues_goes_on_with_the_trace_of_the_caller(
    told: Telemetry, queue: Any, rows: Any, lost: str
) -> None:
    rows(4)
    start = clock.now()
    with told.tracer.start_as_current_span("POST /orders") as caller:
        walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1)
    for _ in range(("plan", "shard", "finalize").index(lost)):
        finish(queue, queue.queued()[0])
    queue.clear()
    with clock.replaced(lambda: start + 700):
        with told.tracer.start_as_current_span("GET /_ah/cron"):
            assert sweep().counts["requeued"] == 1
        drain(queue)
    assert iterations.finalized == [()]
    traces = {each.context.trace_id for each in told.spans("process default")}
    assert traces == {caller.get_span_context().trace_id}
