"""A walk from its call to its end: every row once, and finalize once."""

from __future__ import annotations

from typing import Any

import pytest
from testapp import iterations
from testapp.models import Row

from defer_core.testing import drain
from defer_iteration import defer_iteration_with_finalize, models
from defer_iteration.errors import UnknownIterationError
from defer_iteration.model.iteration import IterationState

walk = defer_iteration_with_finalize


def test_every_row_is_passed_once_and_finalize_called_once(queue: Any, rows: Any) -> None:
    keys = rows(23)
    walk(Row.objects.all(), iterations.callback, iterations.finalize)
    drain(queue)
    assert sorted(iterations.seen) == keys
    assert iterations.finalized == [()]


def test_args_and_kwargs_reach_both(queue: Any, rows: Any) -> None:
    rows(3)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, args=["fixed"], colour="red")
    drain(queue)
    assert iterations.finalized == [("fixed", {"colour": "red"})]
    assert iterations.counters == [{"passed": 3, "fixed": 3}]


def test_rows_are_divided_over_the_shards_evenly(queue: Any, rows: Any) -> None:
    rows(40)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=4)
    drain(queue)
    indexes = [index for index, _, _ in iterations.shards.values()]
    assert [indexes.count(index) for index in range(4)] == [10, 10, 10, 10]


def test_no_rows_finalize_too(queue: Any) -> None:
    walk(Row.objects.all(), iterations.callback, iterations.finalize)
    drain(queue)
    assert iterations.finalized == [()]
    assert not models.Iteration.objects.exists()


MANY = [pytest.param(1000, marks=pytest.mark.on_sql), pytest.param(320, marks=pytest.mark.on_gcloudc)]

"""The fewer are two pages of Datastore's store and some; 1,000 take 50 s there."""


@pytest.mark.parametrize("shards", [1, 7, *MANY])
def test_any_number_of_shards(queue: Any, rows: Any, shards: int) -> None:
    keys = rows(1200)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=shards)
    drain(queue)
    assert sorted(iterations.seen) == keys
    assert iterations.finalized == [()]
    assert len({index for index, _, _ in iterations.shards.values()}) == shards


def test_the_marker_is_deleted_after_the_end(queue: Any, rows: Any) -> None:
    rows(3)
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize)
    assert handle.progress().state is IterationState.NEW
    drain(queue)
    assert not models.Iteration.objects.exists() and not models.Shard.objects.exists()
    with pytest.raises(UnknownIterationError):
        handle.progress()


def test_the_marker_is_kept_if_asked(queue: Any, rows: Any) -> None:
    rows(12)
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize, _delete_marker=False, _shards=3)
    drain(queue)
    progress = handle.progress()
    assert progress.state is IterationState.DONE
    assert (progress.rows, progress.total, progress.counters) == (12, 12, {"passed": 12})
    assert [shard.rows for shard in progress.shards] == [4, 4, 4]


def test_queue_service_and_deadline_hold_for_every_task(queue: Any, rows: Any) -> None:
    rows(4)
    walk(
        Row.objects.all(), iterations.callback, iterations.finalize, None, "slow", 2,
        _service="worker", _version="v7", _dispatch_deadline=900,
    )  # fmt: skip
    sent = []
    original = queue.send
    queue.send = lambda message: sent.append(message.routing) or original(message)
    sent += [task.message.routing for task in queue.queued()]
    drain(queue)
    assert len(sent) == 4  # plan, two shards, finalize
    assert {(each.queue, each.service, each.version, each.dispatch_deadline) for each in sent} == {
        ("slow", "worker", "v7", 900.0)
    }


def test_a_function_may_return_the_queryset(queue: Any, rows: Any) -> None:
    keys = rows(5)
    walk(iterations.all_rows, iterations.callback, iterations.finalize)
    drain(queue)
    assert sorted(iterations.seen) == keys
    assert iterations.finalized == [()]


@pytest.mark.on_sql  # Datastore wants the field as order_field: it has a test of its own
def test_a_filtered_queryset(queue: Any, rows: Any) -> None:
    rows(20)
    walk(Row.objects.filter(number__gte=15), iterations.callback, iterations.finalize)
    drain(queue)
    assert len(iterations.seen) == 5
    assert Row.objects.filter(pk__in=iterations.seen, number__gte=15).count() == 5
