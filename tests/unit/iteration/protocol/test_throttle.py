"""`_throttle` and `_max_rows_per_second`: how fast shards may go."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from testapp import iterations
from testapp.models import Row

from defer_core.errors import OptionError
from defer_core.run import stopping
from defer_core.spi import clock
from defer_core.testing import drain
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration import models
from defer_iteration.protocol import timing
from defer_iteration.stores.routing import store_on

from ..deliveries import deliver, finish

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


class Clock:
    """Seconds that pass in sleeps alone."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.slept = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    made = Clock()
    monkeypatch.setattr(timing, "sleep", made.sleep)
    with clock.replaced(lambda: made.now):
        yield made


def start(number: int = 1, **options: Any) -> Any:
    return walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=number, **options)


def walked(queue: Any, time: Clock) -> float:
    """Deliver each task when it is due, and return how many seconds passed."""
    began = time.now
    while queue.queued():
        task = min(queue.queued(), key=lambda each: each.due or 0.0)
        time.now = max(time.now, task.due or 0.0)
        finish(queue, task)
    return time.now - began


# --- the rate -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize(
    ("rate", "shards", "seconds"),
    [(10, 1, 9.0), (100.0, 1, 0.0), (40, 4, None), (1, 1, 99.0), (0.1, 1, 990.0), (2.5, 1, 39.2)],
)
def test_no_more_rows_are_passed_than_it_allows(
    queue: Any, rows: Any, time: Clock, atomic: bool, rate: float, shards: int, seconds: float | None
) -> None:
    """100 rows; each shard passes its part of a second's rows at once, and then waits for the second to end."""
    keys = rows(100)
    passed_at: list[float] = []
    iterations.before.append(lambda row: passed_at.append(time.now))
    start(shards, _max_rows_per_second=rate, _atomic=atomic)
    walked(queue, time)
    assert iterations.times() == dict.fromkeys(keys, 1) and len(iterations.finalized) == 1
    for number, at in enumerate(passed_at):
        assert number < rate * (at - passed_at[0]) + max(rate, shards)
    if shards == 1:  # several sleep one after the other here
        assert passed_at[-1] - passed_at[0] == pytest.approx(seconds, abs=1.0)


def test_a_short_pause_is_slept_and_a_long_one_holds_no_worker(queue: Any, rows: Any, time: Clock) -> None:
    rows(3)
    start(_max_rows_per_second=0.5)
    walked(queue, time)
    assert time.slept == pytest.approx(6.0)
    iterations.reset()
    time.slept = 0.0
    start(_max_rows_per_second=0.1)
    walked(queue, time)
    assert time.slept == 0.0 and len(iterations.seen) == 3


def test_a_pause_ends_with_the_attempt(queue: Any, rows: Any, time: Clock) -> None:
    """With 10 s an attempt and 2 s a row, the fifth pause would end too late: the shard is handed over before it."""
    rows(8)
    start(_max_rows_per_second=0.5, _dispatch_deadline=15, _buffer_time=5)
    finish(queue, queue.queued()[0])
    began = time.now
    finish(queue, queue.queued()[0])
    assert time.now - began < 10.0 and models.Shard.objects.get().generation == 1
    [task] = queue.queued()
    assert task.due is not None and 0.0 < task.due - time.now <= 2.0


def test_a_process_that_is_told_to_end_sleeps_no_longer(
    queue: Any, rows: Any, time: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows(3)
    start(_max_rows_per_second=0.25)
    finish(queue, queue.queued()[0])

    def told(seconds: float) -> None:
        time.sleep(seconds)
        monkeypatch.setattr(stopping, "asked", [15])

    monkeypatch.setattr(timing, "sleep", told)
    finish(queue, queue.queued()[0])
    assert time.slept <= 0.5 and models.Shard.objects.get().generation == 1
    [task] = queue.queued()
    assert task.due == pytest.approx(1_000_004.0)


@pytest.mark.parametrize("value", [0, -1, True, "fast", float("nan"), float("inf"), timedelta(seconds=1)])
def test_a_rate_that_is_none_is_refused(queue: Any, value: Any) -> None:
    with pytest.raises(OptionError, match=r"_max_rows_per_second is .* it must be a number above 0"):
        start(_max_rows_per_second=value)
    assert queue.queued() == []


# --- the callable -------------------------------------------------------------------------------------------------


def test_it_is_asked_at_the_start_of_an_attempt_and_after_each_checkpoint(queue: Any, rows: Any, time: Clock) -> None:
    rows(10)
    iterations.before.append(lambda row: time.sleep(1.0))
    start(_throttle=iterations.throttle)
    walked(queue, time)
    assert iterations.asked == [0, 3, 6, 9]  # a checkpoint every three seconds


@pytest.mark.parametrize("atomic", [False, True])
def test_the_shard_goes_on_after_as_many_seconds_as_it_says(queue: Any, rows: Any, time: Clock, atomic: bool) -> None:
    keys = rows(4)
    iterations.waits += [600, 60.5, 2, 0, False, None]
    start(_throttle=iterations.throttle, _atomic=atomic)
    assert walked(queue, time) == pytest.approx(662.5)
    assert time.slept == pytest.approx(2.0)
    assert iterations.times() == dict.fromkeys(keys, 1)
    assert models.Shard.objects.count() == 0 and len(iterations.finalized) == 1


def test_waiting_is_no_failure(queue: Any, rows: Any, time: Clock) -> None:
    rows(2)
    iterations.waits += [600] * 20
    handle = start(_throttle=iterations.throttle, _on_error="fail", _max_attempts=2)
    finish(queue, queue.queued()[0])
    for _ in range(20):
        [task] = queue.queued()
        time.now = max(time.now, task.due or 0.0)
        finish(queue, task)
    shard = store_on("default").shard(handle.id, 0)
    assert shard is not None and (shard.errors, shard.attempts, shard.requeues) == (0, 0, 0)
    assert handle.progress().state == "running"


@pytest.mark.parametrize(
    "answer", [ConnectionError("the replica is down"), -1, True, "5", float("nan"), float("inf"), timedelta(seconds=5)]
)
def test_what_it_raises_or_returns_amiss_is_recorded_and_tried_again(
    queue: Any, rows: Any, time: Clock, answer: Any
) -> None:
    keys = rows(2)
    iterations.waits.append(answer)
    start(_throttle=iterations.throttle)
    finish(queue, queue.queued()[0])
    [task] = queue.queued()
    with pytest.raises((ConnectionError, TypeError)):
        deliver(task)
    shard = models.Shard.objects.get()
    assert shard.errors == 1 and iterations.seen == []
    assert ("the replica is down" if isinstance(answer, Exception) else "_throttle returned") in shard.error
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1)


def test_a_throttle_that_takes_arguments_is_refused_at_the_call(queue: Any) -> None:
    with pytest.raises(TypeError) as caught:
        start(_throttle=iterations.callback)
    assert any("_throttle" in each for each in caught.value.__notes__)
