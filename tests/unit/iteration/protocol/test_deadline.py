"""When a shard hands over: the deadline, `_buffer_time`, TimeoutException, and what passes through."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from testapp import iterations
from testapp.models import Row

from defer_core import Outcome, execute, install_signal_handlers
from defer_core.run import stopping
from defer_core.spi import Delivery, clock
from defer_core.testing import drain
from defer_iteration import TimeoutException, models
from defer_iteration import defer_iteration_with_finalize as walk

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


class Clock:
    """Seconds that only tests let pass."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def a_row_takes(self, seconds: float) -> None:
        iterations.before.append(lambda row: setattr(self, "now", self.now + seconds))


@pytest.fixture
def time() -> Iterator[Clock]:
    made = Clock()
    with clock.replaced(lambda: made.now):
        yield made


def deliver_first(queue: Any) -> Outcome:
    task = queue.queued()[0]
    outcome = execute(task.message.body, Delivery(task_name=task.name, queue="default", eta=task.due))
    if outcome is not Outcome.RETRY:
        queue.remove(task)
    return outcome


def test_a_given_buffer_time_stops_that_early(queue: Any, rows: Any, time: Clock) -> None:
    keys = rows(100)
    time.a_row_takes(10)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1, _buffer_time=200)
    deliver_first(queue)
    deliver_first(queue)
    assert len(iterations.seen) == 40  # 400 of 600 seconds
    assert models.Shard.objects.get().generation == 1
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1)
    assert iterations.finalized == [()]


def test_without_one_the_slowest_row_decides(queue: Any, rows: Any, time: Clock) -> None:
    keys = rows(100)
    time.a_row_takes(10)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1)
    deliver_first(queue)
    deliver_first(queue)
    assert len(iterations.seen) == 59  # no row is begun within 11 seconds of the end
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1)


def test_the_deadline_of_the_attempt_is_respected(queue: Any, rows: Any, time: Clock) -> None:
    rows(100)
    time.a_row_takes(10)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1, _buffer_time=0, _dispatch_deadline=60)
    deliver_first(queue)
    deliver_first(queue)
    assert len(iterations.seen) == 6


def test_an_attempt_passes_at_least_one_row(queue: Any, rows: Any, time: Clock) -> None:
    keys = rows(5)
    time.a_row_takes(700)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1, _buffer_time=599)
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1)
    assert iterations.finalized == [()]


@pytest.mark.parametrize("error", [TimeoutException, TimeoutException("out of time"), TimeoutException("a", "b")])
def test_a_timeout_exception_hands_over_and_counts_as_no_attempt(queue: Any, rows: Any, error: Any) -> None:
    keys = rows(6)
    raised: list[int] = []

    def yield_often(row: Any) -> None:
        if row.pk == keys[3] and len(raised) < 8:
            raised.append(row.pk)
            raise error

    iterations.before.append(yield_often)
    walk(
        Row.objects.all(), iterations.callback, iterations.finalize, _shards=1, _on_error="quarantine", _max_attempts=2
    )
    drain(queue)
    assert len(raised) == 8
    assert iterations.times() == dict.fromkeys(keys, 1)
    assert iterations.counters == [{"passed": 6}]
    assert not models.QuarantinedRow.objects.exists()


@pytest.mark.parametrize("error", [TimeoutException(90), TimeoutException("soon", countdown=90)])
def test_a_timeout_exception_may_say_when_to_go_on(queue: Any, rows: Any, time: Clock, error: Exception) -> None:
    keys = rows(2)
    iterations.before.append(lambda row: iterations.before.clear() or raised(error))
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1)
    for _ in range(2):  # the plan and the shard
        deliver_first(queue)
    assert queue.queued()[0].due == time.now + 90
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1)


def raised(error: Exception) -> None:
    raise error


@pytest.fixture
def told() -> Iterator[list[int]]:
    """The signals that the program's own handler of SIGTERM got; ours is installed after it."""
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: got.append(number))
    install_signal_handlers()
    yield got
    signal.signal(signal.SIGTERM, before)
    stopping.asked.clear()


@pytest.mark.parametrize("atomic", [False, True])
def test_a_shard_hands_over_when_its_process_is_told_to_end(
    queue: Any, rows: Any, time: Clock, told: list[int], atomic: bool
) -> None:
    """Within half a second of rows: two of them here."""
    keys = rows(10)
    time.a_row_takes(0.3)

    def end(row: Any) -> None:
        if row.pk == keys[3]:
            os.kill(os.getpid(), signal.SIGTERM)

    iterations.before.append(end)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1, _atomic=atomic)
    deliver_first(queue)
    assert deliver_first(queue) is Outcome.DONE
    passed = len(iterations.seen)
    assert 4 <= passed <= 6 and (iterations.seen, told) == (keys[:passed], [signal.SIGTERM])
    assert models.Shard.objects.get().generation == 1
    stopping.asked.clear()  # another process
    iterations.before.clear()
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1)
    assert iterations.finalized == [()]


class DeadlineExceededError(BaseException):
    """App Engine's."""


@pytest.mark.parametrize("kind", [DeadlineExceededError, KeyboardInterrupt])
def test_base_exceptions_pass_and_cost_only_what_came_after_the_checkpoint(
    queue: Any, rows: Any, time: Clock, kind: type[BaseException]
) -> None:
    keys = rows(10)
    time.a_row_takes(1)

    def interrupt(row: Any) -> None:
        if len(iterations.seen) == 7:
            iterations.before.remove(interrupt)
            raise kind

    iterations.before.append(interrupt)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1)
    deliver_first(queue)
    with pytest.raises(kind):
        deliver_first(queue)
    assert models.Shard.objects.get().rows == 6
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1) | {keys[6]: 2}


def test_a_slow_row_outlives_its_requeues(queue: Any, rows: Any, time: Clock) -> None:
    """Each requeue calls a row slower than the deadline again, but the grace grows until one attempt gets through."""
    from defer_core.spi import sweep

    keys = rows(2)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1)
    deliver_first(queue)
    outcomes: list[Outcome] = []

    def slow(row: Any) -> None:
        """Takes 1,000 s; meanwhile the sweep runs, and a requeued task is delivered as soon as it is there."""
        for _ in range(20):
            time.now += 50
            sweep()
            requeued = [task for task in queue.queued() if task.name.rpartition("-")[2] > str(len(outcomes))]
            if requeued and len(outcomes) < 8:
                outcomes.append(Outcome.RETRY)
                outcomes[-1] = deliver_first(queue)

    iterations.before.append(slow)
    deliver_first(queue)
    drain(queue)
    assert set(iterations.seen) == set(keys)
    assert iterations.finalized == [()]
    assert iterations.counters == [{"passed": 2}]
