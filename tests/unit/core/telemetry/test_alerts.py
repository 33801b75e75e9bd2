"""docs/monitoring.md lists what there is, and its queries for Cloud Monitoring ask what the example's rules ask."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import services

from defer_core.telemetry import attributes, metrics
from defer_core.telemetry.metrics import Metric

ROOT = Path(__file__).parents[4]
DOCUMENT = (ROOT / "docs" / "monitoring.md").read_text()
NAMES = [value for name, value in vars(attributes).items() if name.isupper()]
"""The names of all attributes."""


def rules() -> dict[str, str]:
    """The queries of the example's rules, by their names."""
    yaml = services.library("yaml")
    groups = yaml.safe_load((ROOT / "examples" / "prometheus" / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: " ".join(rule["expr"].split()) for group in groups for rule in group["rules"]}


def in_prometheus(metric: Metric) -> str:
    """The name that Prometheus' exporter gives a metric."""
    name = metric.name.replace(".", "_") + ("_seconds" if metric.unit == "s" else "")
    return name + {"counter": "_total", "histogram": "_bucket", "observable_gauge": ""}[metric.kind]


def in_cloud_monitoring(query: str) -> str:
    """A query with the names that Cloud Monitoring gives what is pushed by OTLP."""
    for name in NAMES:
        query = re.sub(rf"\b{name.replace('.', '_')}\b", f'"{name}"', query)
    for metric in metrics.METRICS:
        name = metric.name + ("_bucket" if metric.kind == "histogram" else "")
        query = re.sub(rf"\b{in_prometheus(metric)}\{{", f'{{"{name}", ', query)
        query = re.sub(rf"\b{in_prometheus(metric)}\b", f'{{"{name}"}}', query)
    return query


def in_the_document() -> dict[str, str]:
    """The queries of the document, by the names of their alerts."""
    printed = re.search(r"```\n(# Defer.*?)```", DOCUMENT, re.DOTALL)
    assert printed is not None
    found = re.findall(r"# (\w+)[^\n]*\n(.*?)(?:\n\n|\Z)", printed[1], re.DOTALL)
    return {name: " ".join(query.split()) for name, query in found}


def test_cloud_monitoring_is_asked_what_prometheus_is_asked() -> None:
    assert in_the_document() == {name: in_cloud_monitoring(query) for name, query in rules().items()}


def test_every_alert_is_explained() -> None:
    assert [*rules()] == re.findall(r"^\| `(Defer\w+)` \|", DOCUMENT, re.MULTILINE)


@pytest.mark.parametrize("metric", metrics.METRICS, ids=lambda metric: metric.name)
def test_every_metric_is_in_the_table(metric: Metric) -> None:
    kind = metric.kind.replace("_", " ")
    assert f"| `{metric.name}` | {kind} | `{metric.unit}` |" in DOCUMENT


@pytest.mark.parametrize("name", NAMES)
def test_every_attribute_is_in_the_document(name: str) -> None:
    assert f"`{name}`" in DOCUMENT
