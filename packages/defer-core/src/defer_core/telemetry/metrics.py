"""Metrics by OpenTelemetry: those of its conventions for messaging, and some of ours. All that there are is here.

No attribute is an id, so that the number of series is bounded by queues and functions.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .. import clock
from ..__about__ import __version__
from ..config import current
from ..logs import logger
from . import attributes

log = logger("defer")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric."""

    name: str
    """Its name."""
    kind: str
    """`counter`, `histogram`, or `observable_gauge`, which is read when it is exported."""
    unit: str
    """Its unit, by UCUM."""
    description: str
    """What it tells."""
    buckets: tuple[float, ...] | None = None
    """The upper bounds of a histogram's buckets, unless the project's views say otherwise."""


SENT = Metric(
    name="messaging.client.sent.messages",
    kind="counter",
    unit="{message}",
    description="Tasks handed to a queue, with the error of those that it did not take",
)
OPERATION = Metric(
    name="messaging.client.operation.duration",
    kind="histogram",
    unit="s",
    description="How long it took to hand a task, or many at once, to a queue",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
CONSUMED = Metric(
    name="messaging.client.consumed.messages",
    kind="counter",
    unit="{message}",
    description="Attempts that have ended, by their outcome",
)
DURATION = Metric(
    name="messaging.process.duration",
    kind="histogram",
    unit="s",
    description="How long the call of an attempt took",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60, 300, 600, 1800),
)
DELAY = Metric(
    name="defer.delay",
    kind="histogram",
    unit="s",
    description="How long after it was due (its ETA, else the time of `defer()`) a task was first attempted",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 21600, 86400),
)
DEAD_LETTERS = Metric(
    name="defer.dead_letters",
    kind="counter",
    unit="{task}",
    description="Tasks that became dead letters, by the reason",
)
SWEEPS = Metric(name="defer.sweeps", kind="counter", unit="{sweep}", description="Sweeps that have ended")
SWEPT = Metric(
    name="defer.swept",
    kind="counter",
    unit="{task}",
    description="What sweeps have done, as `sweep` prints it: tasks sent, postponed, held, ...",
)
OUTBOX_AGE = Metric(
    name="defer.outbox.age",
    kind="observable_gauge",
    unit="s",
    description="Age of the oldest record that is not known to have been sent; 0 if there is none",
)
ROWS = Metric(
    name="defer.iteration.rows",
    kind="counter",
    unit="{row}",
    description="Rows of iterations that were passed to their callback and checkpointed",
)
METRICS = (SENT, OPERATION, CONSUMED, DURATION, DELAY, DEAD_LETTERS, SWEEPS, SWEPT, OUTBOX_AGE, ROWS)


def is_loaded() -> bool:
    """Return True if this process measures, or might."""
    return "opentelemetry.metrics" in sys.modules


def sent(queue: str, label: str, error: BaseException | None = None, *, began: float) -> None:
    """Count a task that was handed to a queue from `began` on (seconds since the epoch); `error` is the answer of one
    that did not take it."""
    if is_loaded():
        _instruments()[OPERATION].record(clock.since(began), attributes.operation("send", queue, "", error))
        _count_sent(queue, label, error)


def _count_sent(queue: str, label: str, error: BaseException | None, count: int = 1) -> None:
    _instruments()[SENT].add(count, attributes.operation("send", queue, label, error))


def sent_many(tasks: Iterable[tuple[str, str]], answers: Sequence[object], *, began: float) -> None:
    """Count many tasks (queue and label of each), which were handed to their queue at once from `began` on, by its
    answers, of which some are errors."""
    if not (is_loaded() and answers):
        return
    tasks = list(tasks)
    _instruments()[OPERATION].record(clock.since(began), attributes.operation("send", tasks[0][0], ""))
    groups = Counter[tuple[str, str, str]]()
    errors: dict[str, BaseException] = {}
    for (queue, label), answer in zip(tasks, answers, strict=True):
        kind = attributes.error_type(answer) if isinstance(answer, BaseException) else ""
        if isinstance(answer, BaseException):
            errors[kind] = answer
        groups[queue, label, kind] += 1
    for (queue, label, kind), count in groups.items():
        _count_sent(queue, label, errors.get(kind), count)


def attempted(
    queue: str, label: str, outcome: str, *, duration: float, delay: float | None, error: BaseException | None
) -> None:
    """Count an attempt that has ended, and record its duration and delay (None: not known, or not its first) in
    seconds; `error` is that of one that has failed."""
    if not is_loaded():
        return
    instruments = _instruments()
    given = attributes.operation("process", queue, label, error) | {attributes.OUTCOME: outcome}
    instruments[CONSUMED].add(1, given)
    if label:  # else nothing was called
        instruments[DURATION].record(duration, given)
    if delay is not None:
        instruments[DELAY].record(delay, _of_task(queue, label))


def died(queue: str, label: str, reason: str) -> None:
    """Count a task that has become a dead letter."""
    if is_loaded():
        _instruments()[DEAD_LETTERS].add(1, _of_task(queue, label) | {attributes.REASON: reason})


def swept(counts: Mapping[str, int]) -> None:
    """Count a sweep, and what it has done."""
    if is_loaded():
        instruments = _instruments()
        instruments[SWEEPS].add(1)
        for what, count in counts.items():
            instruments[SWEPT].add(count, {attributes.OUTCOME: what})


def count_rows(label: str, rows: int) -> None:
    """Count rows of an iteration with the callback `label`, once their checkpoint is committed."""
    if rows and is_loaded():
        _instruments()[ROWS].add(rows, {attributes.FUNCTION: attributes.function(label)})


def _of_task(queue: str, label: str) -> dict[str, Any]:
    found = {attributes.QUEUE: queue or "default"}
    return found | {attributes.FUNCTION: attributes.function(label)} if label else found


def _instruments() -> Mapping[Metric, Any]:
    from opentelemetry.metrics import get_meter_provider

    return _instruments_of(get_meter_provider())


@lru_cache(maxsize=1)
def _instruments_of(provider: Any) -> Mapping[Metric, Any]:
    meter = provider.get_meter("defer", __version__)
    return {each: _made(each, meter) for each in METRICS}


def _made(metric: Metric, meter: Any) -> Any:
    further: dict[str, Any] = {}
    if metric.buckets:
        further["explicit_bucket_boundaries_advisory"] = metric.buckets
    if metric is OUTBOX_AGE:
        further["callbacks"] = [lambda options: _outbox.observations()]
    make = getattr(meter, f"create_{metric.kind}")
    return make(metric.name, unit=metric.unit, description=metric.description, **further)


class OutboxAges:
    """The ages of the stores' oldest records that are not known to have been sent, read at most every `KEPT` seconds,
    however many exporters ask."""

    KEPT = 15.0

    def __init__(self) -> None:
        self._read_at: float | None = None
        self._ages: Mapping[str, float] = {}
        self._silent: set[str] = set()
        self._lock = threading.Lock()

    def observations(self) -> list[Any]:
        """Return an observation for each store. Never raises."""
        from opentelemetry.metrics import Observation

        with self._lock:
            if self._read_at is None or not 0 <= clock.now() - self._read_at < self.KEPT:
                self._read_at, self._ages = clock.now(), self._read()
            return [Observation(age, {attributes.STORE: store}) for store, age in self._ages.items()]

    def _read(self) -> Mapping[str, float]:
        try:
            stores = current().every_store()
        except Exception as error:
            self._not_read("The stores", error)
            return {}
        self._silent.discard("The stores")
        ages: dict[str, float] = {}
        for store in stores:
            name = f"{store.name} {store.alias}".strip()
            try:
                with store.briefly():
                    oldest = store.oldest_pending()
                ages[name] = max(0.0, clock.now() - oldest) if oldest else 0.0
                self._silent.discard(f"The store {name}")
            except Exception as error:
                self._not_read(f"The store {name}", error)
        return ages

    def _not_read(self, what: str, error: Exception) -> None:
        """Log that a store does not answer, once until it does again."""
        if what not in self._silent:
            log.warning("%s could not be asked for the age of the outbox: %s", what, repr(error))
            self._silent.add(what)


_outbox = OutboxAges()
