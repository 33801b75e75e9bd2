"""A row that cannot be read is that row's failure, and the others go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.db import OperationalError, ProgrammingError, connection
from django.db.models import F, FloatField, Func, Value
from testapp import iterations
from testapp.models import Piece, Shape
from testapp.shapes import unreadable

from defer_core.testing import drain, run_one
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.rows.queryset import QuerySetRows

pytestmark = [pytest.mark.django_db(transaction=True, databases=["default", "other"]), pytest.mark.on_sql]


@pytest.fixture(autouse=True)
def _readable() -> Iterator[None]:
    yield
    unreadable.clear()


def shapes(count: int) -> list[Any]:
    Shape.objects.bulk_create([Shape(number=each % 4, secret=each, big=each) for each in range(count)])
    return list(Shape.objects.order_by("pk").values_list("pk", flat=True))


def deliver(queue: Any, rounds: int = 8) -> None:
    """Deliver whatever there is, some rounds long."""
    for _ in range(rounds):
        for task in queue.queued():
            with suppress(ValueError):
                run_one(task, queue)


@pytest.mark.parametrize("order", ["pk", "number", "double", "secret"])
@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("which", [[0], [29], [13], [13, 14], [0, 7, 8, 9, 29], range(30)])
def test_rows_that_cannot_be_read_are_set_aside(queue: Any, order: str, atomic: bool, which: Any) -> None:
    keys = shapes(30)
    unreadable.update(which)
    handle = walk(
        Shape.objects.all(), iterations.callback, iterations.finalize, order_field=order,
        _shards=2, _on_error="quarantine", _max_attempts=2, _atomic=atomic, _delete_marker=False,
    )  # fmt: skip
    drain(queue)
    progress = handle.progress()
    assert progress.state == "done" and iterations.finalized == [()]
    assert sorted(row.key[-1] for row in progress.quarantined) == [keys[each] for each in which]
    assert all("cannot be decrypted" in row.error and row.attempts == 2 for row in progress.quarantined)
    assert iterations.times() == dict.fromkeys(set(keys) - {keys[each] for each in which}, 1)
    unreadable.clear()
    assert handle.retry_quarantined()
    drain(queue)
    assert sorted(iterations.seen) == keys and not handle.progress().quarantined


@pytest.mark.parametrize("atomic", [False, True])
def test_rows_that_cannot_be_read_fail_the_iteration(queue: Any, atomic: bool) -> None:
    keys = shapes(30)
    unreadable.add(13)
    handle = walk(
        Shape.objects.all(), iterations.callback, iterations.finalize,
        _shards=1, _on_error="fail", _max_attempts=2, _atomic=atomic,
    )  # fmt: skip
    drain(queue)
    progress = handle.progress()
    assert progress.state == "failed"
    assert f"({keys[13]},)" in progress.reason and "cannot be decrypted: 13" in progress.reason
    assert iterations.times() == dict.fromkeys(keys[:13], 1)


@pytest.mark.parametrize("atomic", [False, True])
def test_rows_that_cannot_be_read_are_passed_once_they_can_be(queue: Any, atomic: bool) -> None:
    keys = shapes(30)
    unreadable.add(13)
    walk(Shape.objects.all(), iterations.callback, iterations.finalize, _shards=1, _atomic=atomic)
    deliver(queue, 3)
    assert iterations.times() == dict.fromkeys(keys[:13], 1)
    unreadable.clear()
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1) and iterations.finalized == [()]


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("queryset", [Piece.objects.select_related("shape"), Piece.objects.prefetch_related("shape")])
def test_a_related_row_that_cannot_be_read(queue: Any, queryset: Any, atomic: bool) -> None:
    shapes(10)
    Piece.objects.bulk_create([Piece(shape=shape) for shape in Shape.objects.all() for _ in range(3)])
    unreadable.add(5)
    bad = set(Piece.objects.filter(shape__big=5).values_list("pk", flat=True))
    handle = walk(
        queryset, iterations.callback, iterations.finalize,
        _shards=1, _on_error="quarantine", _max_attempts=1, _atomic=atomic, _delete_marker=False,
    )  # fmt: skip
    drain(queue)
    assert {row.key[0] for row in handle.progress().quarantined} == bad
    assert len(iterations.seen) == 27 and set(iterations.times().values()) == {1}


@pytest.mark.parametrize("pace", [None, 10_000.0])
@pytest.mark.parametrize("batch", [None, 20])
@pytest.mark.parametrize("atomic", [False, True])
def test_a_value_that_the_driver_cannot_read(queue: Any, atomic: bool, batch: int | None, pace: float | None) -> None:
    keys = shapes(30)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("UPDATE testapp_shape SET at = '10000-01-01' WHERE id = %s", [keys[13]])
        else:
            cursor.execute("UPDATE testapp_shape SET text = CAST(x'ff00ff' AS TEXT) WHERE id = %s", [keys[13]])
    handle = walk(
        Shape.objects.all(), iterations.callback if batch is None else iterations.batch_callback, iterations.finalize,
        _shards=1, _on_error="quarantine", _max_attempts=2, _atomic=atomic, _delete_marker=False,
        _batch=batch, _max_rows_per_second=pace,
    )  # fmt: skip
    drain(queue)
    assert [row.key for row in handle.progress().quarantined] == [(keys[13],)]
    assert iterations.times() == dict.fromkeys(set(keys) - {keys[13]}, 1)


@pytest.mark.on_postgres
@pytest.mark.parametrize("atomic", [False, True])
def test_a_row_that_the_server_cannot_compute(queue: Any, atomic: bool) -> None:
    keys = shapes(30)
    inverse = Func(Value(1.0) / (F("big") - Value(13.0)), function="", output_field=FloatField())
    handle = walk(
        Shape.objects.annotate(inverse=inverse), iterations.callback, iterations.finalize,
        _shards=1, _on_error="quarantine", _max_attempts=2, _atomic=atomic, _delete_marker=False,
    )  # fmt: skip
    drain(queue)
    assert [row.key for row in handle.progress().quarantined] == [(keys[13],)]
    assert iterations.times() == dict.fromkeys(set(keys) - {keys[13]}, 1)


@pytest.mark.parametrize("error", [OperationalError("the server is gone"), ProgrammingError("no such column")])
@pytest.mark.parametrize("atomic", [False, True])
def test_what_all_rows_suffer_is_no_rows_failure(
    queue: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, atomic: bool
) -> None:
    keys = shapes(30)
    handle = walk(
        Shape.objects.all(), iterations.callback, iterations.finalize,
        _shards=1, _on_error="fail", _max_attempts=1, _atomic=atomic,
    )  # fmt: skip
    (plan,) = queue.queued()
    run_one(plan, queue)
    with monkeypatch.context() as broken:
        broken.setattr(QuerySetRows, "_next", lambda *args: (_ for _ in ()).throw(error))
        for _ in range(3):
            with suppress(type(error)):
                run_one(queue.queued()[0], queue)
    assert handle.progress().state == "running"
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1)
