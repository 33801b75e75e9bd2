"""A transient fault is not held against the row that met it; every other error is."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError
from testapp import iterations
from testapp.models import Row

from defer_core.spi import clock
from defer_core.testing import drain, run_one
from defer_iteration import IterationState
from defer_iteration import defer_iteration_with_finalize as walk


@pytest.fixture(autouse=True)
def quiet(caplog: Any) -> None:
    """Logged tracebacks have what cannot be encoded, and so cannot be sent to the process that collects the results."""
    caplog.set_level(logging.CRITICAL, "defer")


pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


def wrapped(error: Exception) -> Exception:
    outer = ValueError("could not book")
    outer.__cause__ = error
    return outer


@pytest.mark.on_sql
@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("on_error", ["fail", "quarantine"])
@pytest.mark.parametrize(
    "error",
    [
        OperationalError("database is locked"),
        OperationalError("database table is locked: testapp_row"),
        OperationalError(1213, "Deadlock found when trying to get lock"),
        wrapped(OperationalError("database is locked")),
    ],
    ids=["locked", "table locked", "mysql", "wrapped"],
)
def test_contention_is_not_held_against_the_row(
    queue: Any, rows: Any, on_error: str, atomic: bool, error: Exception
) -> None:
    keys = rows(12)
    calls: list[Any] = []

    def busy(row: Any) -> None:
        if row.pk == keys[5]:
            calls.append(row.pk)
            if len(calls) <= 10:
                raise error.with_traceback(None)  # which all of these tests would add to

    iterations.before.append(busy)
    handle = walk(
        Row.objects.all(), iterations.callback, iterations.finalize,
        _shards=1, _on_error=on_error, _max_attempts=1, _delete_marker=False, _atomic=atomic,
    )  # fmt: skip
    run_one(queue.queued()[0], queue)
    run_one(queue.queued()[0], queue)
    [shard] = handle.progress().shards
    assert (shard.errors, shard.attempts, shard.failing) == (1, 0, None)
    assert "locked" in shard.error or "Deadlock" in shard.error
    assert queue.queued()[0].due > clock.now(), "it is called again with delay"
    drain(queue)
    look = handle.progress()
    assert (look.state, look.quarantined, look.rows) == (IterationState.DONE, [], 12)
    assert set(iterations.seen) == set(keys) and iterations.finalized == [()]


@pytest.mark.on_sql
@pytest.mark.parametrize("error", [OperationalError("no such table: x"), IntegrityError("duplicate key"), OSError(5)])
def test_every_other_error_is_the_rows(queue: Any, rows: Any, error: Exception) -> None:
    keys = rows(4)

    def wrong(row: Any) -> None:
        if row.pk == keys[1]:
            raise error

    iterations.before.append(wrong)
    handle = walk(
        Row.objects.all(), iterations.callback, iterations.finalize, _shards=1, _on_error="quarantine", _max_attempts=2
    )
    drain(queue)
    assert [row.key for row in handle.progress().quarantined] == [(keys[1],)]
