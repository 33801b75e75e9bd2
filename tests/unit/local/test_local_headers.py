"""The headers of a dispatch, against what production Cloud Tasks was recorded to send."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from defer_core.spi import Routing
from defer_local.headers import dispatch_headers
from defer_local.queued import QueuedTask
from defer_local.retry import failed

RECORDED: dict[str, Any] = json.loads((Path(__file__).parents[2] / "compat" / "cloud_tasks.json").read_text())
URLS = {"appengine": "/work", "http": "http://127.0.0.1:1/work"}


def a_task(kind: str, **fields: Any) -> QueuedTask:
    given = {"queue": "mail", "name": "t-1", "eta": 1_700_000_000.25, "attempts": 1, "routing": Routing(url=URLS[kind])}
    return QueuedTask(**(given | fields))


def expected(headers: dict[str, str]) -> dict[str, str]:
    values = {"{queue}": "mail", "{task}": "t-1", "{eta}": "1700000000.250000"}
    return {name: values.get(value, value) for name, value in headers.items()}


@pytest.mark.parametrize("kind", ["appengine", "http"])
def test_the_headers_over_retries_are_as_recorded(kind: str) -> None:
    task = a_task(kind)
    for attempt in RECORDED["dispatch_headers"][kind]:
        assert dispatch_headers(task) == expected(attempt["headers"])
        again = failed(task, attempt["answered"], 1_700_000_001.0)
        assert again is not None
        task = replace(again, attempts=again.attempts + 1)


@pytest.mark.parametrize("kind", ["appengine", "http"])
def test_a_timeout_is_told_as_recorded(kind: str) -> None:
    again = failed(a_task(kind), None, 1_700_000_001.0)
    assert again is not None
    headers = dispatch_headers(replace(again, attempts=2))
    prefix = "X-AppEngine-" if kind == "appengine" else "X-CloudTasks-"
    told = RECORDED["timeouts"][kind]
    assert headers[prefix + "TaskPreviousResponse"] == told["previous_response"]
    assert headers[prefix + "TaskRetryReason"] == told.get("retry_reason", "")
    assert headers[prefix + "TaskExecutionCount"] == "0"


def test_a_task_cannot_forge_the_headers_of_the_queue() -> None:
    forged = {"x-appengine-taskname": "x", "X-CloudTasks-QueueName": "x", "X-Defer-Local-Secret": "x", "Host": "x"}
    routing = Routing(url="/", headers={**forged, "X-Mine": "yes"})
    headers = dispatch_headers(a_task("appengine", routing=routing), "s3cret")
    assert {name for name, value in headers.items() if value == "x"} == set()
    assert (headers["X-Mine"], headers["X-Defer-Local-Secret"]) == ("yes", "s3cret")


def test_a_body_is_octets_unless_it_says_otherwise() -> None:
    assert dispatch_headers(a_task("appengine", body=b"x"))["Content-Type"] == "application/octet-stream"
    own = a_task("appengine", body=b"x", routing=Routing(url="/", headers={"content-type": "text/plain"}))
    assert [value for name, value in dispatch_headers(own).items() if name.lower() == "content-type"] == ["text/plain"]
