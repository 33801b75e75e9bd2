"""pause, resume, cancel and progress."""

from __future__ import annotations

from typing import Any

import pytest
from testapp import iterations
from testapp.models import Row

from defer_core import execute
from defer_core.spi import Delivery, clock, sweep
from defer_core.testing import drain, run_one
from defer_iteration import IterationHandle, models
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.model.iteration import IterationState

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


def after(number: int, what: Any) -> None:
    """Do something once so many rows were passed."""

    def act(row: Any) -> None:
        if len(iterations.seen) == number:
            iterations.before.remove(act)
            what()

    iterations.before.append(act)


@pytest.fixture
def slow_rows() -> Any:
    """A second a row, so that every third row is followed by a checkpoint."""
    now = [1_000_000.0]
    iterations.reset()
    with clock.replaced(lambda: now[0]):
        yield lambda: iterations.before.append(lambda row: now.__setitem__(0, now[0] + 1))


def test_pause_stops_at_the_next_checkpoint_and_resume_goes_on(queue: Any, rows: Any, slow_rows: Any) -> None:
    keys = rows(12)
    slow_rows()
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1)
    after(4, lambda: handle.pause() or pytest.fail("not paused"))
    drain(queue)
    progress = handle.progress()
    assert progress.state is IterationState.PAUSED
    assert (progress.rows, progress.total, progress.counters) == (6, 12, {"passed": 6})
    assert handle.resume() and not handle.resume()
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1)
    assert iterations.finalized == [()]


def test_a_paused_iteration_is_left_alone_by_the_sweep(queue: Any, rows: Any) -> None:
    rows(4)
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize)
    execute(queue.queued()[0].message.body, Delivery())
    assert handle.pause()
    drain(queue)
    start = clock.now()
    with clock.replaced(lambda: start + 100_000):
        assert sweep().counts["requeued"] == 0
    assert iterations.seen == []


def test_pause_before_the_plan(queue: Any, rows: Any) -> None:
    keys = rows(4)
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize)
    assert handle.pause()
    drain(queue)
    assert iterations.seen == []
    assert handle.resume()
    drain(queue)
    assert sorted(iterations.seen) == keys
    assert iterations.finalized == [()]


def test_shards_that_end_while_it_is_paused_finalize_on_resume(queue: Any, rows: Any) -> None:
    rows(4)
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1)
    after(2, handle.pause)
    drain(queue)
    assert len(iterations.seen) == 4 and iterations.finalized == []
    assert handle.resume()
    drain(queue)
    assert iterations.finalized == [()]
    assert iterations.counters == [{"passed": 4}]


def test_resume_while_an_attempt_still_runs_loses_nothing(queue: Any, rows: Any) -> None:
    keys = rows(10)
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1)
    after(4, lambda: (handle.pause(), handle.resume()))
    drain(queue)
    assert set(iterations.seen) == set(keys)
    assert iterations.finalized == [()]
    assert iterations.counters == [{"passed": 10}]


def test_cancel_stops_for_good(queue: Any, rows: Any, slow_rows: Any) -> None:
    rows(12)
    slow_rows()
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1)
    after(4, handle.cancel)
    drain(queue)
    assert len(iterations.seen) == 6 and iterations.finalized == []
    assert handle.progress().state is IterationState.CANCELLED
    assert not handle.resume() and not handle.pause() and not handle.cancel()


def test_a_handle_can_be_made_again_from_its_id(queue: Any, rows: Any) -> None:
    rows(4)
    made = walk(Row.objects.all(), iterations.callback, iterations.finalize, _delete_marker=False)
    drain(queue)
    progress = IterationHandle(id=made.id).progress()
    assert progress.state is IterationState.DONE and progress.rows == 4


def test_a_query_of_another_feature_release_is_held(queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows(2)
    with monkeypatch.context() as patch:
        patch.setattr("django.get_version", lambda: "4.2.1")
        handle = walk(Row.objects.all(), iterations.callback, iterations.finalize)
    drain(queue)
    progress = handle.progress()
    assert progress.state is IterationState.HELD and "Django 4.2.1" in progress.reason
    assert handle.resume()  # tries again, and is held again
    drain(queue)
    assert handle.progress().state is IterationState.HELD


def test_a_query_of_another_patch_release_runs_with_a_warning(
    queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    import django

    rows(2)
    release = ".".join(django.get_version().split(".")[:2])
    with monkeypatch.context() as patch:
        patch.setattr("django.get_version", lambda: f"{release}.99")
        walk(Row.objects.all(), iterations.callback, iterations.finalize)
    drain(queue)
    assert len(iterations.seen) == 2
    assert f"{release}.99" in caplog.text


@pytest.mark.parametrize("given", [[5], 5, None])
def test_ranges_that_are_none_hold_the_iteration(
    queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch, given: Any
) -> None:
    rows(3)
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize, key_ranges_getter=iterations.whole_range)
    monkeypatch.setattr(iterations, "RANGES", given)
    drain(queue)
    assert (handle.progress().state, iterations.seen) == (IterationState.HELD, [])
    assert "key_ranges_getter gave " in handle.progress().reason
    monkeypatch.undo()
    assert handle.resume()
    drain(queue)
    assert (len(iterations.seen), iterations.finalized) == (3, [()])


def test_a_function_that_returns_another_kind_of_queryset_by_then_holds_the_iteration(
    queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows(3)
    handle = walk(iterations.all_rows, iterations.callback, iterations.finalize, _shards=1)
    run_one(queue.queued()[0], queue)
    monkeypatch.setattr(iterations, "all_rows", lambda: Row.objects.all()[:2])
    drain(queue)
    monkeypatch.undo()
    assert handle.progress().state == IterationState.HELD
    assert "sliced" in handle.progress().reason
    assert handle.resume()
    drain(queue)
    assert (len(iterations.seen), iterations.finalized) == (3, [()])


def test_a_callback_that_is_gone_is_retried_and_then_held(
    queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from defer_core import Outcome

    rows(2)
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize)
    monkeypatch.delattr("testapp.iterations.callback")
    start = clock.now()
    (plan,) = queue.queued()
    assert execute(plan.message.body, Delivery()) is Outcome.RETRY
    with clock.replaced(lambda: start + 4000):
        assert execute(plan.message.body, Delivery()) is Outcome.DONE
    assert handle.progress().state is IterationState.HELD
    assert "testapp.iterations:callback" in handle.progress().reason
    assert models.Iteration.objects.get().resumes == "new"
