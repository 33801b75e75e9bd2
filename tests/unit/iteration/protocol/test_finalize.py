"""Promise 4: `finalize` is recorded exactly once, whatever happens between the last shard and its success."""

from __future__ import annotations

from typing import Any

import pytest
from testapp import iterations
from testapp.models import Row
from unit.iteration.deliveries import Killed, deliver, finish, kill, state

from defer_core import Outcome
from defer_core.spi import clock, sweep
from defer_core.testing import drain
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration import models
from defer_iteration.model.iteration import IterationState

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


# --- finalize --------------------------------------------------------------------------------------------------------


def test_promise_4_a_crash_between_the_last_shard_and_finalize_loses_nothing(
    queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows(4)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1)
    finish(queue, queue.queued()[0])
    (shard,) = queue.queued()
    with monkeypatch.context() as patch:
        patch.setattr("defer_iteration.protocol.scheduler.Scheduler.enqueue_finalize", lambda *args: kill())
        with pytest.raises(Killed):
            deliver(shard)
    assert state() == "running"
    drain(queue)
    assert iterations.finalized == [()]
    assert iterations.counters == [{"passed": 4}]


def test_a_queue_that_is_down_after_the_commit_loses_no_finalize(
    queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from defer_core.errors import TransportUnavailableError

    rows(4)
    start = clock.now()
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1)
    finish(queue, queue.queued()[0])

    def down(messages: Any) -> Any:
        return [TransportUnavailableError() for _ in messages]

    with monkeypatch.context() as patch:
        patch.setattr(queue, "send_many", down)
        finish(queue, queue.queued()[0])
    assert queue.queued() == [] and state() == "finalizing"
    with clock.replaced(lambda: start + 100):
        sweep()
        drain(queue)
    assert iterations.finalized == [()]


def test_finalize_that_raises_is_tried_again(queue: Any, rows: Any) -> None:
    rows(2)
    walk(Row.objects.all(), iterations.callback, iterations.finalize)
    tries: list[int] = []

    def fail_once() -> None:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("not yet")

    iterations.finalizing.append(fail_once)
    drain(queue)
    assert len(tries) == 2
    assert iterations.finalized == [()]
    assert not models.Iteration.objects.exists()


def test_a_finalize_killed_after_its_work_runs_again_but_is_recorded_once(
    queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows(2)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _delete_marker=False)
    while len(queue.queued()) != 1 or "finalize" not in queue.queued()[0].name:
        finish(queue, queue.queued()[0])
    (task,) = queue.queued()
    with monkeypatch.context() as patch:
        patch.setattr("defer_iteration.protocol.finalize.record_success", lambda *args: kill())
        with pytest.raises(Killed):
            deliver(task)
    finish(queue, task)
    assert deliver(task) is Outcome.DONE
    assert iterations.finalized == [(), ()]


def test_finalize_that_fails_for_good_holds_the_iteration(queue: Any, rows: Any) -> None:
    from defer_core.errors import PermanentTaskFailure

    rows(2)
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize)

    def fail() -> None:
        raise PermanentTaskFailure("never")

    iterations.finalizing.append(fail)
    drain(queue)
    assert handle.progress().state is IterationState.HELD
    assert "never" in handle.progress().reason
    iterations.finalizing.clear()
    assert handle.resume()
    drain(queue)
    assert iterations.finalized == [()]
