"""Records as Cloud Logging reads them: one object of JSON a line, whatever they hold."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import IntEnum
from typing import Any

import pytest
from opentelemetry import trace

from defer_core import CloudLoggingFormatter, Delivery
from defer_core.delivery import Ending, running
from defer_core.log_fields import of_attempt

ID, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HERE = Delivery(task_name="7f", queue="mail", retry_count=1, trace=f"00-{ID}-{SPAN}-01")
TRACE, SPAN_ID = "logging.googleapis.com/trace", "logging.googleapis.com/spanId"
SOURCE = "logging.googleapis.com/sourceLocation"


@pytest.fixture(autouse=True)
def project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "shop")


@pytest.fixture
def in_a_task() -> Iterator[None]:
    token = running.set(HERE)
    yield
    running.reset(token)


def written(message: Any = "hello", *args: Any, level: int = logging.INFO, exc: Any = None, **extra: Any) -> Any:
    """The JSON of a record, which is one line."""
    record = logging.getLogger("shop").makeRecord("shop", level, "/srv/shop.py", 12, message, args, exc, "f", extra)
    line = CloudLoggingFormatter().format(record)
    assert "\n" not in line and line.isascii()
    return json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_record_has_the_fields_that_cloud_logging_knows() -> None:
    told = written("%d orders", 3)
    assert abs(datetime.fromisoformat(told.pop("time")).timestamp() - datetime.now().timestamp()) < 3600
    where = {"file": "/srv/shop.py", "line": "12", "function": "f"}
    assert told == {"severity": "INFO", "message": "3 orders", "logger": "shop", SOURCE: where}


@pytest.mark.parametrize(
    ("level", "severity"),
    [(5, "DEBUG"), (10, "DEBUG"), (25, "INFO"), (30, "WARNING"), (40, "ERROR"), (50, "CRITICAL"), (90, "CRITICAL")],
)
def test_every_level_has_a_severity(level: int, severity: str) -> None:
    assert written(level=level)["severity"] == severity


@pytest.mark.usefixtures("in_a_task")
def test_a_line_in_a_task_has_the_task_and_the_trace_of_its_request() -> None:
    told = written(order=17)
    assert (told["task"], told["queue"], told["attempt"], told["order"]) == ("7f", "mail", 2, 17)
    assert (told[TRACE], told[SPAN_ID]) == (f"projects/shop/traces/{ID}", SPAN)
    assert not {"trace", "span"} & told.keys()


def test_a_line_about_an_attempt_has_its_fields_outside_the_task_too() -> None:
    told = written(**of_attempt(HERE, Ending.DONE, function="shop:ship"))
    assert (told["task"], told["function"], told["outcome"]) == ("7f", "shop:ship", "done")
    assert told[TRACE] == f"projects/shop/traces/{ID}" and isinstance(told["duration"], float)


def test_the_project_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    record = logging.makeLogRecord({"levelno": logging.INFO, "trace": ID})
    assert json.loads(CloudLoggingFormatter(project="other").format(record))[TRACE] == f"projects/other/traces/{ID}"
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT")
    monkeypatch.delenv("CLOUD_TASKS_PROJECT_ID", raising=False)
    assert json.loads(CloudLoggingFormatter().format(record))[TRACE] == ID


@pytest.mark.usefixtures("in_a_task")
def test_a_span_of_opentelemetry_is_nearer_than_the_request() -> None:
    context = trace.SpanContext(trace_id=0xA, span_id=0xB, is_remote=False)
    with trace.use_span(trace.NonRecordingSpan(context)):
        told = written()
        about = written(**of_attempt(HERE, Ending.DONE))
    assert (told[TRACE], told[SPAN_ID]) == (f"projects/shop/traces/{'0' * 31}a", f"{'0' * 15}b")
    assert told["task"] == "7f" and about[TRACE] == f"projects/shop/traces/{ID}"


def test_no_extra_replaces_what_every_record_has() -> None:
    told = written(severity="EMERGENCY", time=0, logger="x", trace="mine")
    assert (told["severity"], told["logger"], told["trace"]) == ("INFO", "shop", "mine")
    assert TRACE not in told and isinstance(told["time"], str)


def test_an_exception_is_a_stack_trace_with_its_cause() -> None:
    try:
        try:
            raise KeyError("lines")
        except KeyError as error:
            raise ValueError("order 4711") from error
    except ValueError:
        told = written(exc=sys.exc_info(), level=logging.ERROR)
    assert told["stack_trace"].startswith("Traceback (most recent call last):")
    assert "KeyError: 'lines'" in told["stack_trace"] and told["stack_trace"].endswith("ValueError: order 4711")
    assert told["message"] == "hello"
    assert "stack_trace" not in written(exc=(None, None, None))


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError


class OddMapping(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        raise RuntimeError

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError

    def __len__(self) -> int:
        return 1


class Size(IntEnum):
    LARGE = 3


CIRCULAR: list[Any] = []
CIRCULAR.append(CIRCULAR)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        ({1: {2}, (3,): b"x"}, {"1": [2], "(3,)": "b'x'"}),
        ("\ud800\0", "\\ud800\\x00"),
        (Odd(), "<Odd>"),
        (OddMapping(), "<OddMapping>"),
        (Size.LARGE, 3),
        ([None, True, 1.5], [None, True, 1.5]),
        (10**5000, "<int>"),  # which Python does not print
        ("x" * 200_000, "x" * 50_000),
        (CIRCULAR, [[[[[["[[...]]"]]]]]]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_cannot_hold_is_text(value: Any, expected: Any) -> None:
    assert written(value=value)["value"] == expected


def test_a_message_whose_arguments_do_not_fit_is_written_all_the_same() -> None:
    assert written("%d orders", "three")["message"] == "%d orders ('three',)"
    assert written(Odd())["message"] == "<Odd> ()"
