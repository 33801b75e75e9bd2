"""The plan: one set of shards, however many planners there are and whenever they die."""

from __future__ import annotations

from typing import Any

import pytest
from testapp import iterations
from testapp.models import Row
from unit.iteration.deliveries import Killed, deliver, finish, kill, state

from defer_core.testing import drain
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration import models

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


def test_a_planner_that_dies_half_way_starts_nothing(queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = rows(10)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=5)
    (plan,) = queue.queued()
    with monkeypatch.context() as patch:
        patch.setattr("defer_iteration.protocol.scheduler.enqueue_many", lambda tasks: kill())
        with pytest.raises(Killed):
            deliver(plan)
    assert state() == "new" and not models.Shard.objects.exists()
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1)
    assert iterations.finalized == [()]


def test_two_planners_at_once_make_one_set_of_shards(queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = rows(10)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=5)
    (plan,) = queue.queued()
    from defer_iteration.protocol import job

    original, inner = job.rows_of, []

    def also(*args: Any) -> Any:
        if not inner:  # while one divides the rows, the other plans from beginning to end
            inner.append(True)
            deliver(plan)
        return original(*args)

    monkeypatch.setattr(job, "rows_of", also)
    finish(queue, plan)
    assert models.Shard.objects.count() == 5
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1)
    assert iterations.finalized == [()]
