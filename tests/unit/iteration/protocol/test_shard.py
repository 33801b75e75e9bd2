"""Promise 3: a shard resumes at its last checkpoint, and only its newest attempt writes."""

from __future__ import annotations

from typing import Any

import pytest
from testapp import iterations
from testapp.models import Row
from unit.iteration.deliveries import Killed, deliver, finish, kill, on_row, state

from defer_core import Outcome
from defer_core.spi import clock
from defer_core.testing import drain
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration import models
from defer_iteration.errors import FenceLostError
from defer_iteration.model.iteration import IterationState
from defer_iteration.stores import routing
from defer_iteration.tasks import run_shard

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


# --- a shard under way -----------------------------------------------------------------------------------------------


def test_promise_3_a_killed_shard_resumes_at_its_checkpoint(queue: Any, rows: Any) -> None:
    keys = rows(10)
    time = [1_000_000.0]
    with clock.replaced(lambda: time[0]):
        walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1)
        finish(queue, queue.queued()[0])
        iterations.before.append(lambda row: time.__setitem__(0, time[0] + 1.0))  # a second a row: checkpoints after 3
        on_row(9, kill)
        with pytest.raises(Killed):
            deliver(queue.queued()[0])
        assert models.Shard.objects.get().rows == 6
        drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1) | dict.fromkeys(keys[6:8], 2)
    assert iterations.finalized == [()]
    assert iterations.counters == [{"passed": 10}]


def test_a_concurrent_delivery_takes_over_and_the_old_attempt_answers_retry(queue: Any, rows: Any) -> None:
    keys = rows(10)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1)
    finish(queue, queue.queued()[0])
    (shard,) = queue.queued()
    on_row(5, lambda: deliver(shard))
    assert deliver(shard) is Outcome.RETRY
    assert state() == "finalizing"
    drain(queue)
    assert set(iterations.seen) == set(keys)
    assert iterations.finalized == [()]
    assert iterations.counters == [{"passed": 10}]


def test_a_superseded_attempt_cannot_write_a_checkpoint(queue: Any, rows: Any) -> None:
    rows(3)
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1)
    finish(queue, queue.queued()[0])
    store = routing.store_on("default")
    old = store.acquire(handle.id, 0, 0, due=lambda requeues: 0.0)
    new = store.acquire(handle.id, 0, 0, due=lambda requeues: 0.0)
    assert old is not None and new is not None
    assert store.checkpoint(old[1]) is None
    assert store.hand_over(old[1]) is None
    assert store.complete(old[1], due=0.0).value == "lost"
    assert store.checkpoint(new[1]) is IterationState.RUNNING


def test_a_wrong_generation_is_nothing_to_do(queue: Any, rows: Any) -> None:
    rows(3)
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1)
    finish(queue, queue.queued()[0])
    run_shard("default", handle.id, 0, 1)
    assert iterations.seen == []


def test_fence_lost_is_a_retry() -> None:
    from defer_core.errors import SingularTaskFailure

    assert issubclass(FenceLostError, SingularTaskFailure)
