"""What the log says once an iteration has stopped, or a row was set aside."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.db import InterfaceError
from testapp import iterations
from testapp.models import Row

from defer_core.errors import PermanentTaskFailure
from defer_core.testing import drain, in_memory
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.model.iteration import Iteration, IterationOptions
from defer_iteration.model.shard import KeyRange, Shard
from defer_iteration.protocol import news
from defer_iteration.stores.routing import store_on

from ..deliveries import on_row, poison

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])
FIELDS = ("iteration", "iteration_name", "function", "shard", "row", "outcome", "error")
LABEL = "testapp.iterations:callback"


def start(**options: Any) -> Any:
    return walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1, **options)


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, dict[str, Any]]]:
    """The lines that name an outcome of an iteration, with their fields."""
    return [
        (
            record.levelname,
            record.getMessage(),
            {name: getattr(record, name) for name in FIELDS if hasattr(record, name)},
        )
        for record in caplog.records
        if record.name == "defer" and hasattr(record, "iteration")
    ]


def test_an_iteration_that_fails_is_one_error(queue: Any, rows: Any, caplog: pytest.LogCaptureFixture) -> None:
    keys = rows(3)
    poison(keys[1])
    handle = start(_on_error="fail", _max_attempts=2, _name="bills")
    drain(queue)
    [(level, text, fields)] = told(caplog)
    assert level == "ERROR"
    assert text == (
        f"Iteration {handle.id} (bills) has failed: the row {keys[1]} of shard 0 has raised in call 2: "
        "ValueError: poison"
    )
    assert fields == {
        "iteration": handle.id,
        "iteration_name": "bills",
        "function": LABEL,
        "shard": 0,
        "row": str(keys[1]),
        "outcome": "failed",
        "error": "ValueError: poison",
    }


def test_one_that_was_stopped_meanwhile_has_not_failed(queue: Any, rows: Any, caplog: pytest.LogCaptureFixture) -> None:
    keys = rows(1)
    on_row(1, lambda: handle.cancel())
    poison(keys[0])
    handle = start(_on_error="fail", _max_attempts=1)
    drain(queue)
    assert iterations_raised(caplog) and told(caplog) == []


@pytest.mark.on_sql  # by an error of its drivers
def test_a_failure_whose_commit_was_not_confirmed_is_said(
    queue: Any, rows: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = type(store_on("default"))
    transact, lost = store.transact, []

    def losing(self: Any, work: Any) -> Any:
        done = transact(self, work)
        if work.__name__ == "fail" and not lost:
            lost.append(work)
            raise InterfaceError("connection already closed")
        return done

    monkeypatch.setattr(store, "transact", losing)
    monkeypatch.setattr(store, "reconnect", lambda self: True)
    poison(rows(1)[0])
    start(_on_error="fail", _max_attempts=1)
    drain(queue)
    assert lost and [level for level, _, _ in told(caplog)] == ["ERROR"]


def test_a_row_that_is_quarantined_is_a_warning(queue: Any, rows: Any, caplog: pytest.LogCaptureFixture) -> None:
    keys = rows(3)
    poison(keys[0])
    handle = start(_on_error="quarantine", _max_attempts=3)
    drain(queue)
    [(level, text, fields)] = told(caplog)
    assert level == "WARNING"
    assert text == (
        f"Iteration {handle.id} ({LABEL}) has quarantined the row {keys[0]} of shard 0, which has raised in call 3: "
        "ValueError: poison"
    )
    assert fields == {
        "iteration": handle.id,
        "function": LABEL,
        "shard": 0,
        "row": str(keys[0]),
        "outcome": "quarantined",
        "error": "ValueError: poison",
    }


def test_a_finalize_that_fails_for_good_is_an_error(queue: Any, rows: Any, caplog: pytest.LogCaptureFixture) -> None:
    rows(1)
    iterations.finalizing.append(refuse)
    handle = start()
    drain(queue, on_error="ignore")
    [(level, text, fields)] = told(caplog)
    assert level == "ERROR"
    assert text == f"Iteration {handle.id} ({LABEL}) is held: finalize failed for good: no printer"
    assert fields == {
        "iteration": handle.id,
        "function": LABEL,
        "outcome": "held",
        "error": "finalize failed for good: no printer",
    }


def refuse() -> None:
    raise PermanentTaskFailure("no printer")


@pytest.mark.parametrize("what", ["failed", "quarantined"])
def test_nothing_is_said_of_what_is_not_committed(
    queue: Any, rows: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    keys = rows(1)
    poison(keys[0])

    def refused(*args: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(type(store_on("default")), "checkpoint", refused)
    start(_on_error={"failed": "fail", "quarantined": "quarantine"}[what], _max_attempts=1)
    drain(queue, on_error="ignore", max_attempts=2)
    assert iterations_raised(caplog) and told(caplog) == []


def iterations_raised(caplog: pytest.LogCaptureFixture) -> bool:
    return any("has raised, in call 1" in record.getMessage() for record in caplog.records)


def test_keys_of_a_secret_order_are_in_no_line(caplog: pytest.LogCaptureFixture) -> None:
    iteration = Iteration(id="1" * 32, job=b"", label="shop:book", options=IterationOptions(order_field="api_token"))
    shard = Shard(
        iteration_id=iteration.id, index=2, range=KeyRange(), failing=("hunter2", 5), attempts=1, error="ValueError: no"
    )
    news.failed(iteration, shard)
    news.quarantined(iteration, shard)
    assert len(told(caplog)) == 2 and "hunter2" not in str(told(caplog))
    assert [fields["row"] for _, _, fields in told(caplog)] == ["••••••, 5"] * 2


@pytest.mark.on_sql  # the order of a field needs an index there
def test_nor_in_those_about_the_attempt(queue: Any, rows: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "defer")
    rows(1)
    Row.objects.update(rank=123456)
    poison(Row.objects.get().pk)
    with in_memory(store="django", secrets="rank") as secretive:
        start(_on_error="fail", _max_attempts=1, order_field="rank")
        drain(secretive)
    assert iterations_raised(caplog) and len(told(caplog)) == 1 and "123456" not in caplog.text
