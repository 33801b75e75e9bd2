"""What OpenTelemetry is told in a test, kept in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import services


class Telemetry:
    """The spans and metrics of a `with recording()` block."""

    def __init__(self) -> None:
        sdk, exporters = services.library("opentelemetry.sdk.trace"), "opentelemetry.sdk.trace.export"
        memory = services.library(f"{exporters}.in_memory_span_exporter")
        self._exporter = memory.InMemorySpanExporter()
        self.tracers = sdk.TracerProvider()
        self.tracers.add_span_processor(services.library(exporters).SimpleSpanProcessor(self._exporter))
        self._reader = services.library("opentelemetry.sdk.metrics.export").InMemoryMetricReader()
        self.meters = services.library("opentelemetry.sdk.metrics").MeterProvider([self._reader])

    @property
    def tracer(self) -> Any:
        """A tracer, as the site has one."""
        return self.tracers.get_tracer("the site")

    def spans(self, name: str = "") -> Sequence[Any]:
        """The finished spans, in the order in which they began; those of one name."""
        found = [each for each in self._exporter.get_finished_spans() if not name or each.name == name]
        return sorted(found, key=lambda span: span.start_time)

    def span(self, name: str) -> Any:
        """The only finished span of a name."""
        [found] = self.spans(name)
        return found

    def points(self, metric: str, *attributes: str) -> dict[Any, float]:
        """The sums of a counter, the counts of a histogram or the values of a gauge, by these of its attributes (by one
        attribute: by its value; by none: all under `()`)."""
        found: dict[Any, float] = {}
        for point in self.data(metric):
            key = tuple(point.attributes.get(each, "") for each in attributes)
            by = key[0] if len(key) == 1 else key
            found[by] = found.get(by, 0) + (point.count if hasattr(point, "count") else point.value)
        return found

    def data(self, metric: str) -> list[Any]:
        """The data points of a metric."""
        return [point for each in self.metrics() if each.name == metric for point in each.data.data_points]

    def metrics(self) -> list[Any]:
        """All metrics that have been recorded."""
        data = self._reader.get_metrics_data()
        resources = data.resource_metrics if data is not None else ()
        return [each for resource in resources for scope in resource.scope_metrics for each in scope.metrics]


@contextmanager
def recording() -> Iterator[Telemetry]:
    """Record what is traced and measured in a `with` block, as a process does that has set up OpenTelemetry's SDK."""
    telemetry = Telemetry()
    with (
        patch("opentelemetry.trace.get_tracer_provider", lambda: telemetry.tracers),
        patch("opentelemetry.metrics.get_meter_provider", lambda: telemetry.meters),
    ):
        yield telemetry
    telemetry.tracers.shutdown()
    telemetry.meters.shutdown()
