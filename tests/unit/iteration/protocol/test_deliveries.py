"""Promises 4 and 5: every task of an iteration delivered twice, too late, or in place of another."""

from __future__ import annotations

from typing import Any

import pytest
from testapp import iterations
from testapp.models import Row
from unit.iteration.deliveries import deliver, finish, state

from defer_core import Outcome
from defer_core.testing import QueuedTask, drain
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration import models

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


# --- duplicates and late deliveries ----------------------------------------------------------------------------------


def test_promise_5_every_task_delivered_twice_breaks_nothing(queue: Any, rows: Any) -> None:
    keys = rows(30)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=3)
    while tasks := queue.queued():
        deliver(tasks[0])
        finish(queue, tasks[0])
    assert iterations.times() == dict.fromkeys(keys, 1)
    assert iterations.finalized == [()]
    assert iterations.counters == [{"passed": 30}]


def test_promise_5_deliveries_after_the_end_are_nothing_to_do(queue: Any, rows: Any) -> None:
    rows(10)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=2, _delete_marker=False)
    every: dict[str, QueuedTask] = {}
    while tasks := queue.queued():
        every |= {task.name: task for task in tasks}
        finish(queue, tasks[0])
    for task in every.values():
        assert deliver(task) is Outcome.DONE
    models.Iteration.objects.all().delete()
    for task in every.values():
        assert deliver(task) is Outcome.DONE
    assert len(iterations.seen) == 10
    assert iterations.finalized == [()]
    assert queue.queued() == []


def test_promise_4_one_duplicate_shard_does_not_finalize_early(queue: Any, rows: Any) -> None:
    keys = rows(25)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=5)
    finish(queue, queue.queued()[0])
    first = queue.queued()[0]
    for _ in range(6):
        deliver(first)
    assert iterations.finalized == [] and state() == "running"
    drain(queue)
    assert sorted(iterations.seen) == keys
    assert iterations.finalized == [()]
