"""The sweep requeues what has stalled, and nothing else."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from testapp import iterations
from testapp.models import Row
from unit.iteration.deliveries import Killed, deliver, finish, kill, on_row

from defer_core import Outcome
from defer_core.spi import clock, sweep
from defer_core.testing import drain
from defer_iteration import defer_iteration_with_finalize as walk

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


def test_a_queue_that_gives_up_on_a_shard_is_made_good_by_the_sweep(queue: Any, rows: Any) -> None:
    keys = rows(10)
    start = clock.now()
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=2)
    finish(queue, queue.queued()[0])
    lost = queue.queued()[0]
    queue.remove(lost)
    drain(queue)
    assert sweep().counts["requeued"] == 0
    with clock.replaced(lambda: start + 120):
        assert sweep().counts["requeued"] == 1
        assert sweep().counts["requeued"] == 0
        drain(queue)
    assert deliver(lost) is Outcome.DONE
    assert iterations.times() == dict.fromkeys(keys, 1)
    assert iterations.finalized == [()]


def test_a_killed_attempt_is_stalled_only_after_its_deadline(queue: Any, rows: Any) -> None:
    rows(4)
    start = clock.now()
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1)
    finish(queue, queue.queued()[0])
    on_row(2, kill)
    with pytest.raises(Killed):
        deliver(queue.queued()[0])
    queue.remove(queue.queued()[0])
    with clock.replaced(lambda: start + 300):
        assert sweep().counts["requeued"] == 0
    with clock.replaced(lambda: start + 700):
        assert sweep().counts["requeued"] == 1
        drain(queue)
    assert iterations.finalized == [()]


@pytest.mark.parametrize("which", ["plan", "finalize"])
def test_a_queue_that_gives_up_on_plan_or_finalize(queue: Any, rows: Any, which: str) -> None:
    keys = rows(4)
    start = clock.now()
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1)
    while not queue.queued()[0].name.partition("-")[2].startswith(which):
        finish(queue, queue.queued()[0])
    queue.remove(queue.queued()[0])
    with clock.replaced(lambda: start + 120):
        assert sweep().counts["requeued"] == 1
        drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1)
    assert iterations.finalized == [()]


def test_the_grace_doubles_with_each_wake(queue: Any) -> None:
    start = clock.now()
    walk(Row.objects.all(), iterations.callback, iterations.finalize)
    requeued, now = [], start
    for _ in range(int(3600 * 3 / 30)):
        now += 30
        queue.clear()
        with clock.replaced(lambda at=now: at):
            if sweep().counts["requeued"]:
                requeued.append(now)
    gaps = [later - earlier for earlier, later in itertools.pairwise(requeued)]
    assert gaps[:6] == sorted(gaps[:6]) and gaps[0] >= 120 and max(gaps) <= 3630
