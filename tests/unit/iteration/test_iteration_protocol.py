"""Promises 3, 4 and 5: crashes, duplicates, late and concurrent deliveries of every task of an iteration."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from testapp import iterations
from testapp.models import Row

from defer_core import clock
from defer_core.delivery import Delivery
from defer_core.execute import Outcome, execute
from defer_core.sweep import sweep
from defer_core.testing import drain
from defer_core.transports.memory import MemoryTransport, QueuedTask
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration import models, stores
from defer_iteration.errors import FenceLostError
from defer_iteration.iteration import IterationState
from defer_iteration.shard_run import run_shard

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


def deliver(task: QueuedTask) -> Outcome:
    """One delivery; the task stays in the queue."""
    return execute(task.message.body, Delivery(task_name=task.name, queue="default", eta=task.due))


def finish(queue: MemoryTransport, task: QueuedTask) -> None:
    """A delivery that the queue gets an answer to."""
    assert deliver(task) is Outcome.DONE
    queue.remove(task)


class Killed(BaseException):
    """The process dies."""


def on_row(number: int, what: Callable[[], Any]) -> None:
    """Do something in the callback of the `number`th row passed, once."""
    passed = []

    def mischief(row: Any) -> None:
        passed.append(row.pk)
        if len(passed) == number:
            what()

    iterations.before.append(mischief)


def kill() -> None:
    raise Killed


def state() -> str:
    return models.Iteration.objects.get().state


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


def test_a_planner_that_dies_half_way_starts_nothing(queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = rows(10)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=5)
    (plan,) = queue.queued()
    with monkeypatch.context() as patch:
        patch.setattr("defer_iteration.scheduling.enqueue_many", lambda tasks: kill())
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
    from defer_iteration import plan as module

    original, inner = module.rows_of, []

    def also(*args: Any) -> Any:
        if not inner:  # while one divides the rows, the other plans from beginning to end
            inner.append(True)
            deliver(plan)
        return original(*args)

    monkeypatch.setattr(module, "rows_of", also)
    finish(queue, plan)
    assert models.Shard.objects.count() == 5
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1)
    assert iterations.finalized == [()]


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
    store = stores.store_on("default")
    old = store.claim(handle.id, 0, 0, due=lambda wakes: 0.0)
    new = store.claim(handle.id, 0, 0, due=lambda wakes: 0.0)
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


def test_a_queue_that_gives_up_on_a_shard_is_made_good_by_the_sweep(queue: Any, rows: Any) -> None:
    keys = rows(10)
    start = clock.now()
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=2)
    finish(queue, queue.queued()[0])
    lost = queue.queued()[0]
    queue.remove(lost)
    drain(queue)
    assert sweep().counts["woken"] == 0
    with clock.replaced(lambda: start + 120):
        assert sweep().counts["woken"] == 1
        assert sweep().counts["woken"] == 0
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
        assert sweep().counts["woken"] == 0
    with clock.replaced(lambda: start + 700):
        assert sweep().counts["woken"] == 1
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
        assert sweep().counts["woken"] == 1
        drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1)
    assert iterations.finalized == [()]


def test_the_grace_doubles_with_each_wake(queue: Any) -> None:
    start = clock.now()
    walk(Row.objects.all(), iterations.callback, iterations.finalize)
    woken, now = [], start
    for _ in range(int(3600 * 3 / 30)):
        now += 30
        queue.clear()
        with clock.replaced(lambda at=now: at):
            if sweep().counts["woken"]:
                woken.append(now)
    gaps = [later - earlier for earlier, later in itertools.pairwise(woken)]
    assert gaps[:6] == sorted(gaps[:6]) and gaps[0] >= 120 and max(gaps) <= 3630


# --- finalize --------------------------------------------------------------------------------------------------------


def test_promise_4_a_crash_between_the_last_shard_and_finalize_loses_nothing(
    queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows(4)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1)
    finish(queue, queue.queued()[0])
    (shard,) = queue.queued()
    with monkeypatch.context() as patch:
        patch.setattr("defer_iteration.attempt.schedule_finalize", lambda *args: kill())
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
        patch.setattr("defer_iteration.finalize.record_success", lambda *args: kill())
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


# --- transactions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transactional", [True, False])
def test_promise_2_a_call_that_is_rolled_back_never_runs(queue: Any, rows: Any, transactional: bool) -> None:
    from django.db import transaction

    rows(2)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        walk(Row.objects.all(), iterations.callback, iterations.finalize, _transactional=transactional)
        raise ZeroDivisionError
    assert queue.queued() == [] and not models.Iteration.objects.exists()


@pytest.mark.parametrize("transactional", [True, False])
def test_a_call_in_a_transaction_runs_after_its_commit(queue: Any, rows: Any, transactional: bool) -> None:
    from django.db import transaction

    keys = rows(2)
    with transaction.atomic():
        walk(Row.objects.all(), iterations.callback, iterations.finalize, _transactional=transactional)
        assert queue.queued() == []
    drain(queue)
    assert sorted(iterations.seen) == keys


def test_transactional_outside_a_transaction_runs_at_once(queue: Any, rows: Any) -> None:
    rows(1)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _transactional=True)
    assert len(queue.queued()) == 1


def test_fence_lost_is_a_retry() -> None:
    from defer_core.errors import SingularTaskFailure

    assert issubclass(FenceLostError, SingularTaskFailure)
