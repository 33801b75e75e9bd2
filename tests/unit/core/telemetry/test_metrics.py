"""Metrics count what happened, once, by queue and function, and cost nothing but what they are asked for."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from unittest.mock import patch

import pytest
import services
from telemetry import Telemetry, recording

from defer_core import (
    Delivery,
    Outcome,
    PermanentTaskFailure,
    RetryOptions,
    SingularTaskFailure,
    clock,
    defer,
    defer_many,
    execute,
)
from defer_core.errors import (
    AmbiguousSendError,
    BulkSendError,
    QueueNotFoundError,
    TaskAlreadyExistsError,
    TransportRefusedError,
    TransportUnavailableError,
)
from defer_core.record import State
from defer_core.telemetry import metrics
from defer_core.testing import MemoryStore, MemoryTransport, configured, drain, in_memory
from defer_core.transports.base import Message
from defer_core.transports.immediate import ImmediateTransport
from defer_core.upkeep import dead_letters
from defer_core.upkeep.sweep import sweep

NOW = 1_800_000_000.0
HERE = f"{__name__}."
QUEUE, FUNCTION, OUTCOME, REASON = "messaging.destination.name", "code.function.name", "defer.outcome", "defer.reason"
SENT, CONSUMED, DURATION = metrics.SENT.name, metrics.CONSUMED.name, metrics.DURATION.name
time = [NOW]


def work(seconds: float = 0.0, error: Exception | None = None, ballast: bytes = b"") -> None:
    time[0] += seconds
    if error is not None:
        raise error


@pytest.fixture(autouse=True)
def _at_a_settable_time() -> Iterator[None]:
    time[0] = NOW
    with clock.replaced(lambda: time[0]):
        yield


@pytest.fixture
def told() -> Iterator[Telemetry]:
    with recording() as telemetry, patch.object(metrics, "_outbox", metrics.OutboxAges()):
        yield telemetry


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def queue(store: MemoryStore) -> Iterator[MemoryTransport]:
    with in_memory(store=store, keys=["current"]) as transport:
        yield transport


def refusing(error: Exception) -> Callable[[Message], str]:
    def send(message: Message) -> str:
        raise error

    return send


def body_of(queue: MemoryTransport, func: Callable[..., Any], *args: Any, **options: Any) -> bytes:
    defer(func, *args, **options)
    body = queue.queued()[-1].message.body
    queue.clear()
    return body


def delivery(retries: int | None = 0, eta: float | None = None) -> Delivery:
    return Delivery(task_name="t", queue="q", retry_count=retries, started=time[0], eta=eta)


def attempted(body: bytes, retries: int = 0) -> None:
    """Attempt a task that may raise."""
    with suppress(ValueError):
        execute(body, delivery(retries))


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_a_task_that_the_queue_has_taken_counts_as_sent(told: Telemetry, queue: MemoryTransport) -> None:
    defer(work, _queue="mail")
    defer(work, _small_task=True)
    [one, other] = sorted(told.data(SENT), key=lambda point: str(point.attributes[QUEUE]))
    assert (one.value, other.value) == (1, 1)
    assert dict(one.attributes) == {
        "messaging.system": "defer",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        QUEUE: "default",
        FUNCTION: f"{HERE}work",
    }
    assert dict(other.attributes) == {**one.attributes, QUEUE: "mail"}


@pytest.mark.parametrize(
    "error", [TransportUnavailableError(), AmbiguousSendError(), QueueNotFoundError(), TaskAlreadyExistsError()]
)
def test_a_task_that_the_queue_did_not_take_counts_with_its_error(
    told: Telemetry, queue: MemoryTransport, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(queue, "send", refusing(error))
    with suppress(QueueNotFoundError):
        defer(work)
    assert told.points(SENT, "error.type") == {f"defer_core.errors.{type(error).__name__}": 1}


def test_a_task_that_waits_for_its_commit_is_not_sent_yet(told: Telemetry, store: MemoryStore) -> None:
    with in_memory(store=store), store.transaction():
        defer(work)
        defer_many(work, [()])
        assert told.points(SENT) == {}
    assert told.points(SENT) == {(): 2}


def test_many_tasks_are_counted_one_by_one(
    told: Telemetry, queue: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    defer_many(work, [()] * 3)
    assert told.points(SENT, QUEUE, FUNCTION) == {("default", f"{HERE}work"): 3}
    monkeypatch.setattr(queue, "send", refusing(QueueNotFoundError()))
    with pytest.raises(BulkSendError):
        defer_many(work, [()] * 2)
    assert told.points(SENT, "error.type") == {"": 3, "defer_core.errors.QueueNotFoundError": 2}


@pytest.mark.parametrize(
    "send", [lambda: defer(work, _queue="mail"), lambda: defer_many(work, [()] * 3, _queue="mail")]
)
@pytest.mark.parametrize("error", [None, QueueNotFoundError()])
def test_what_is_handed_over_takes_its_time(
    told: Telemetry,
    queue: MemoryTransport,
    monkeypatch: pytest.MonkeyPatch,
    send: Callable[[], object],
    error: Exception | None,
) -> None:
    def slow(message: Message) -> str:
        time[0] += 1.5
        if error is not None:
            raise error
        return "t"

    monkeypatch.setattr(queue, "send", slow)
    with suppress(QueueNotFoundError, BulkSendError):
        send()
    [point] = told.data(metrics.OPERATION.name)
    tasks = told.points(SENT)[()]
    assert (point.count, point.sum, point.attributes[QUEUE]) == (1, 1.5 * tasks, "mail")
    assert FUNCTION not in point.attributes


def test_the_exception_of_a_task_that_its_transport_runs_is_not_the_queues(told: Telemetry, store: MemoryStore) -> None:
    with configured(transport=ImmediateTransport(), store=store), pytest.raises(ValueError):
        defer(work, 0.0, ValueError("no"))
    assert told.points(SENT, "error.type") == {"": 1}
    assert told.points(CONSUMED, OUTCOME) == {"failed": 1}


def test_the_sweep_counts_what_it_sends_again(
    told: Telemetry, queue: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as outage:
        outage.setattr(queue, "send", refusing(TransportUnavailableError()))
        defer(work)
    time[0] += 3600
    sweep()
    assert told.points(SENT, "error.type") == {"defer_core.errors.TransportUnavailableError": 1, "": 1}


# --- attempts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "retries", "outcome", "kind"),
    [
        (None, 0, "done", ""),
        (ValueError("no"), 0, "failed", "ValueError"),
        (ValueError("no"), 1, "dead", "ValueError"),
        (SingularTaskFailure("later"), 0, "retry", ""),
        (PermanentTaskFailure("never"), 0, "dead", "defer_core.errors.PermanentTaskFailure"),
    ],
)
def test_an_attempt_is_counted_by_its_outcome(
    told: Telemetry, queue: MemoryTransport, error: Exception | None, retries: int, outcome: str, kind: str
) -> None:
    attempted(body_of(queue, work, 2.0, error, _retry_options=RetryOptions(max_attempts=2)), retries)
    [point] = told.data(CONSUMED)
    assert point.value == 1
    assert dict(point.attributes) == {
        "messaging.system": "defer",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        QUEUE: "q",
        FUNCTION: f"{HERE}work",
        OUTCOME: outcome,
        **({"error.type": kind} if kind else {}),
    }
    [duration] = told.data(DURATION)
    assert (duration.count, duration.sum, dict(duration.attributes)) == (1, 2.0, dict(point.attributes))


def test_what_is_forbidden_or_unreadable_has_no_function_and_no_duration(
    told: Telemetry, queue: MemoryTransport
) -> None:
    body = body_of(queue, work)
    with in_memory(store=MemoryStore(), keys=["current"], callables=["shop.*"]):
        assert execute(body, delivery()) is Outcome.PERMANENT
    with in_memory(store=MemoryStore(), keys=["another"]):
        assert execute(body, delivery()) is Outcome.RETRY
    assert told.points(CONSUMED, OUTCOME, FUNCTION, "error.type") == {
        ("dead", "", "defer_core.errors.CallableForbiddenError"): 1,
        ("retry", "", ""): 1,
    }
    assert told.data(DURATION) == []
    assert told.points(metrics.DEAD_LETTERS.name, REASON, FUNCTION) == {("unreadable", ""): 1}


def test_the_delay_counts_from_the_eta_at_the_first_attempt_alone(told: Telemetry, queue: MemoryTransport) -> None:
    body = body_of(queue, work)
    time[0] += 90.0
    for retries in (0, 1, None):
        execute(body, delivery(retries, eta=NOW + 30))
    [point] = told.data(metrics.DELAY.name)
    assert (point.count, point.sum) == (1, 60.0)
    assert dict(point.attributes) == {QUEUE: "q", FUNCTION: f"{HERE}work"}


def test_the_delay_counts_from_the_defer_if_there_is_no_eta(told: Telemetry, queue: MemoryTransport) -> None:
    body = body_of(queue, work)
    time[0] += 7.0
    execute(body, delivery())
    [point] = told.data(metrics.DELAY.name)
    assert point.sum == 7.0


def test_a_queue_that_is_early_by_another_clock_has_no_negative_delay(told: Telemetry, queue: MemoryTransport) -> None:
    execute(body_of(queue, work), delivery(eta=NOW + 5))
    [point] = told.data(metrics.DELAY.name)
    assert point.sum == 0.0


# --- dead letters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 300_000], ids=["inline", "stored"])
@pytest.mark.parametrize(
    ("error", "attempts", "reason"),
    [(PermanentTaskFailure("never"), 1, "permanent"), (ValueError("no"), 2, "gave up")],
)
def test_a_dead_letter_is_counted_once_and_its_rerun_is_another_task(
    told: Telemetry, store: MemoryStore, size: int, error: Exception, attempts: int, reason: str
) -> None:
    ballast = random.Random(1).randbytes(size)  # which no compression makes smaller
    with in_memory(store=store) as queue:
        body = body_of(queue, work, 0.0, error, ballast, _retry_options=RetryOptions(max_attempts=2), _queue="q")
        for retries in range(attempts):
            attempted(body, retries)
        expected = {("q", f"{HERE}work", reason): 1}
        dead = metrics.DEAD_LETTERS.name
        assert told.points(dead, QUEUE, FUNCTION, REASON) == expected
        [letter] = store.list(State.DEAD)
        dead_letters.rerun(letter.id, store)
        assert told.points(dead, QUEUE, FUNCTION, REASON) == expected
        assert told.points(SENT) == {(): 2}
        assert told.points(CONSUMED) == {(): attempts}


def test_letters_of_the_sweep_and_of_the_outbox_are_counted(
    told: Telemetry, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with in_memory(store=store, max_send_attempts=1, dead_retention=0) as queue:
        body = body_of(queue, work, 0.0, ValueError("no"))
        attempted(body)
        monkeypatch.setattr(queue, "send", refusing(AmbiguousSendError()))
        defer(work)
        time[0] += 40 * 86400
        sweep()  # the queue has dropped the first silently; whether the second was sent cannot be known any more
        monkeypatch.setattr(queue, "send", refusing(TransportUnavailableError()))
        defer(work)
        time[0] += 3600
        monkeypatch.setattr(queue, "send", refusing(TransportRefusedError()))
        sweep()
    assert told.points(metrics.DEAD_LETTERS.name, REASON) == {"silent": 1, "held": 1, "exhausted": 1}


def test_a_body_that_is_not_kept_is_no_dead_letter(told: Telemetry, queue: MemoryTransport) -> None:
    body = body_of(queue, work, 0.0, PermanentTaskFailure("never"))
    with configured(transport=queue, store=None, keys=["current"]):
        attempted(body)
    assert told.points(CONSUMED, OUTCOME) == {"dead": 1}
    assert told.data(metrics.DEAD_LETTERS.name) == []


# --- the sweep, rows, and the age of the outbox -----------------------------------------------------------------------


def test_sweeps_are_counted_with_what_they_did(told: Telemetry, queue: MemoryTransport) -> None:
    defer_many(work, [()] * 3)
    sweep()
    sweep()
    assert told.points(metrics.SWEEPS.name) == {(): 2}
    assert told.points(metrics.SWEPT.name, OUTCOME) == {"dropped": 3}


def test_rows_are_counted_by_their_callback(told: Telemetry) -> None:
    metrics.count_rows("shop.tasks:book", 30)
    metrics.count_rows("shop.tasks:book", 0)
    assert told.points(metrics.ROWS.name, FUNCTION) == {"shop.tasks.book": 30}


def age(told: Telemetry) -> dict[Any, float]:
    return told.points(metrics.OUTBOX_AGE.name, "defer.store")


def test_the_age_of_the_outbox_is_that_of_the_oldest_record(
    told: Telemetry, queue: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep()
    assert age(told) == {"memory": 0.0}
    monkeypatch.setattr(queue, "send", refusing(TransportUnavailableError()))
    defer(work)
    time[0] += 100.0
    defer(work)
    assert age(told) == {"memory": 100.0}


def test_the_outbox_is_asked_once_however_many_exporters_there_are(
    told: Telemetry, queue: MemoryTransport, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def oldest_pending() -> float:
        asked.append(threading.current_thread().name)
        return NOW - 5

    monkeypatch.setattr(store, "oldest_pending", oldest_pending)
    sweep()
    assert [age(told), age(told)] == [{"memory": 5.0}] * 2
    assert len(asked) == 1
    time[0] += metrics.OutboxAges.KEPT
    assert age(told) == {"memory": 5.0 + metrics.OutboxAges.KEPT}
    assert len(asked) == 2


def test_a_store_that_is_down_is_logged_and_hides_no_other(
    told: Telemetry, queue: MemoryTransport, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    class Ailing(MemoryStore):
        name = "ailing"
        is_down = True

        def oldest_pending(self) -> float | None:
            if self.is_down:
                raise ConnectionError("the database is down")
            return None

    ailing = Ailing()
    with configured(transport=queue, store=ailing, joins=[store]), caplog.at_level(logging.WARNING, "defer"):
        sweep()
        assert age(told) == {"memory": 0.0}
        assert told.points(metrics.SWEEPS.name) == {(): 1}
        said = "The store ailing could not be asked for the age of the outbox: ConnectionError('the database is down')"
        for is_down, times in ((True, 1), (False, 1), (True, 2)):  # once, until it has answered
            ailing.is_down = is_down
            time[0] += 60.0
            assert age(told) == ({"memory": 0.0} if is_down else {"memory": 0.0, "ailing": 0.0})
            warnings = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
            assert warnings == [said] * times


def test_settings_that_name_no_store_hide_no_other_metric(
    told: Telemetry, queue: MemoryTransport, caplog: pytest.LogCaptureFixture
) -> None:
    sweep()
    with configured(transport=queue, store="shop:NoStore"), caplog.at_level(logging.WARNING, "defer"):
        assert age(told) == {}
        assert told.points(metrics.SWEEPS.name) == {(): 1}
    assert "The stores could not be asked for the age of the outbox: ConfigError(" in caplog.text


# --- all of them ------------------------------------------------------------------------------------------------------


def test_units_and_buckets_are_those_of_the_table(told: Telemetry, queue: MemoryTransport) -> None:
    defer(work)
    drain()
    sweep()
    metrics.count_rows("shop.tasks:book", 1)
    metrics.died("q", "shop.tasks:book", "permanent")
    exported = {each.name: each for each in told.metrics()}
    assert set(exported) == {each.name for each in metrics.METRICS}
    for each in metrics.METRICS:
        assert (exported[each.name].unit, exported[each.name].description) == (each.unit, each.description)
        if each.buckets:
            assert exported[each.name].data.data_points[0].explicit_bounds == each.buckets


def test_no_attribute_is_an_id(told: Telemetry, queue: MemoryTransport) -> None:
    for number in range(20):
        defer(work, float(number), _name=f"task-{number}")
    drain()
    assert [len(told.data(each.name)) for each in (metrics.SENT, metrics.CONSUMED, metrics.DELAY)] == [1, 1, 1]


def test_an_sdk_that_is_set_up_later_is_used_from_then_on() -> None:
    services.library("opentelemetry.sdk.metrics")
    code = (
        "import logging; logging.basicConfig()\n"
        "from opentelemetry import metrics, trace\n"
        "from defer_core import defer\nfrom defer_core.testing import MemoryStore, drain, in_memory\n"
        "from opentelemetry.sdk.metrics import MeterProvider\n"
        "from opentelemetry.sdk.metrics.export import InMemoryMetricReader\n"
        "with in_memory(store=MemoryStore()):\n"
        "    defer(len, 'early')\n"
        "    metrics.set_meter_provider(MeterProvider([reader := InMemoryMetricReader()]))\n"
        "    defer(len, 'late')\n"
        "    [scope] = reader.get_metrics_data().resource_metrics[0].scope_metrics\n"
        "    print(*sorted((each.name, len(each.data.data_points)) for each in scope.metrics))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == (
        "('defer.outbox.age', 1) ('messaging.client.operation.duration', 1) ('messaging.client.sent.messages', 1)"
    )
    assert ran.stderr == ""
