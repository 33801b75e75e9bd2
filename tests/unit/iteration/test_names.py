"""Iterations that have a name: begun once, kept for a while, and another one only once that one is forgotten."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections, transaction
from django.test import override_settings
from testapp import iterations
from testapp.models import Row
from unit.iteration.deliveries import deliver, finish, on_row, poison

from defer_core import Outcome
from defer_core.errors import ConfigError, OptionError
from defer_core.spi import clock, sweep
from defer_core.testing import drain
from defer_iteration import IterationHandle, IterationRefusedError, UnknownIterationError, models
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.checks import check_history
from defer_iteration.model.iteration import IterationState
from defer_iteration.stores.base import HISTORY
from defer_iteration.stores.django import DjangoIterationStore

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

NAME = "reprice-2026-11"


def begin(**options: Any) -> IterationHandle:
    """Call with a name."""
    given = {"_name": NAME, "_shards": 2} | options
    return walk(Row.objects.all(), iterations.callback, iterations.finalize, **given)


def other_callback(row: Any) -> None:
    """Another function than the one that has the name."""


# --- begun once -------------------------------------------------------------------------------------------------------


def test_a_name_is_begun_once_and_never_again(queue: Any, rows: Any) -> None:
    keys = rows(7)
    first = begin()
    again = begin()
    assert first.begun and not again.begun and first == again == IterationHandle.named(NAME)
    drain(queue)
    assert first.progress().state is IterationState.DONE and not begin().begun
    assert queue.queued() == []
    assert iterations.times() == dict.fromkeys(keys, 1) and iterations.finalized == [()]


@pytest.mark.parametrize("state", [IterationState.PAUSED, IterationState.CANCELLED])
def test_a_call_leaves_alone_what_a_person_has_stopped(queue: Any, rows: Any, state: IterationState) -> None:
    rows(3)
    handle = begin()
    assert handle.pause() if state is IterationState.PAUSED else handle.cancel()
    assert not begin().begun
    drain(queue)
    assert handle.progress().state is state and iterations.seen == []


def test_a_call_that_is_rolled_back_leaves_the_name_free(queue: Any, rows: Any) -> None:
    rows(3)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        assert begin().begun
        raise ZeroDivisionError
    assert queue.queued() == [] and begin().begun


def test_a_name_belongs_to_one_alias(queue: Any) -> None:
    assert begin().begun and begin(_using="other").begun and not begin(_using="other").begun


def test_another_callback_is_refused(queue: Any, rows: Any) -> None:
    rows(1)
    begin()
    with pytest.raises(IterationRefusedError, match=r"calls testapp\.iterations:callback, and not .*other_callback"):
        walk(Row.objects.all(), other_callback, iterations.finalize, _name=NAME)
    assert len(queue.queued()) == 1
    assert walk(Row.objects.all(), other_callback, iterations.finalize, _name="another").begun


@pytest.mark.parametrize(
    "name",
    ["", "n" * 201, 5, b"name", "a\nb", "a\x00", "a\x7f", "a\x85", "\ud800"],
    ids=["empty", "long", "int", "bytes", "newline", "nul", "delete", "c1", "surrogate"],
)
def test_names_that_are_none(queue: Any, name: Any) -> None:
    with pytest.raises(OptionError, match="_name is"):
        begin(_name=name)
    assert not models.Iteration.objects.exists()


@pytest.mark.parametrize("name", ["x", "n" * 200, "Réévaluer \N{SNOWMAN} {}/%s 'a'"])
def test_names_that_are_some(queue: Any, rows: Any, name: str) -> None:
    rows(2)
    handle = begin(_name=name)
    drain(queue)
    assert handle.progress().name == name and not begin(_name=name).begun


# --- at once ----------------------------------------------------------------------------------------------------------


def test_of_calls_at_the_same_time_one_begins(queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows(1)
    callers, ahead = 4, threading.local()
    together = threading.Barrier(callers)
    get = DjangoIterationStore.get

    def look(self: DjangoIterationStore, iteration_id: str) -> Any:
        found = get(self, iteration_id)
        if not getattr(ahead, "met", False):  # each finds no such name before any inserts it
            ahead.met = True
            together.wait(30)
        return found

    monkeypatch.setattr(DjangoIterationStore, "get", look)

    def call(number: int, *, joined: bool) -> tuple[IterationHandle, int]:
        ahead.met = False
        try:
            if not joined:
                return begin(_name=f"round {number}"), 0
            with transaction.atomic():  # which must be good for more after it lost the race
                return begin(_name=f"round {number}"), Row.objects.count()
        finally:
            connections.close_all()

    rounds = 20 if connections["default"].vendor in ("sqlite", "postgresql") else 2  # the emulator waits for locks
    with ThreadPoolExecutor(callers) as pool:
        for number in range(rounds):
            joined = number % 2 == 1 and connections["default"].vendor == "postgresql"  # others refuse the transaction
            calls = [pool.submit(call, number, joined=joined) for _ in range(callers)]
            found = [each.result(60) for each in calls]
            assert [handle.begun for handle, _ in found].count(True) == 1
            assert {(handle.id, seen) for handle, seen in found} == {(found[0][0].id, int(joined))}
            assert len(queue.queued()) == number + 1


# --- history ----------------------------------------------------------------------------------------------------------


def test_the_marker_of_a_named_one_stays_without_its_shards(queue: Any, rows: Any) -> None:
    rows(7)
    handle = begin()
    drain(queue)
    progress = handle.progress()
    assert (progress.name, progress.state, progress.rows, progress.total) == (NAME, IterationState.DONE, 7, 7)
    assert (progress.shards, progress.counters) == ([], {"passed": 7})
    assert not models.Shard.objects.exists()


@pytest.mark.parametrize(
    ("options", "kept"),
    [({"_name": None}, False), ({"_delete_marker": True}, False), ({"_name": None, "_delete_marker": False}, True)],
)
def test_the_markers_of_others_stay_as_asked(queue: Any, rows: Any, options: dict[str, Any], kept: bool) -> None:
    rows(7)
    begin(**options)
    drain(queue)
    assert (models.Iteration.objects.exists(), models.Shard.objects.exists()) == (kept, kept)
    assert iterations.finalized == [()] and begin(**options).begun


def test_a_named_one_that_has_failed_goes_on(queue: Any, rows: Any) -> None:
    keys = rows(6)
    poison(keys[2])
    handle = begin(_on_error="fail", _max_attempts=1, _shards=1)
    drain(queue)
    assert handle.progress().state is IterationState.FAILED and not begin().begun
    iterations.before.clear()
    assert handle.resume()
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1) and handle.progress().rows == 6


def later(days: float) -> Any:
    """A clock that is ahead."""
    start = clock.now()
    return clock.replaced(lambda: start + days * 86400)


def test_it_is_forgotten_after_thirty_days(queue: Any, rows: Any) -> None:
    rows(2)
    ended, kept, under_way = begin(), begin(_name=None, _delete_marker=False), begin(_name="under way")
    under_way.pause()
    drain(queue)
    with later(29.9):
        assert sweep().counts["forgotten"] == 0
    with later(30.1):
        assert sweep().counts["forgotten"] == 1
        assert sweep().counts["forgotten"] == 0
        with pytest.raises(
            UnknownIterationError, match=r"none is kept that ended before \d{4}-\d\d-\d\d \d\d:\d\d UTC"
        ):
            ended.progress()
        assert begin().begun
    assert kept.progress().rows == 2 and under_way.progress().state is IterationState.PAUSED


def test_the_setting_says_how_long(queue: Any, rows: Any) -> None:
    rows(2)
    handle = begin()
    drain(queue)
    with later(10_000), override_settings(DEFER={"ITERATION_HISTORY": None}):
        assert sweep().counts["forgotten"] == 0
        with pytest.raises(UnknownIterationError, match="kept until somebody forgets them"):
            IterationHandle.named("nobody's").progress()
    with later(1.1), override_settings(DEFER={"ITERATION_HISTORY": 86400}):
        assert sweep().counts["forgotten"] == 1
    with pytest.raises(UnknownIterationError):
        handle.progress()


@pytest.mark.parametrize("value", ["30", -1, True, float("nan"), float("inf"), [30]])
def test_a_setting_that_is_no_number_of_seconds_is_reported(queue: Any, value: Any) -> None:
    assert check_history(None) == []
    with override_settings(DEFER={"ITERATION_HISTORY": value}):
        (found,) = check_history(None)
        with pytest.raises(ConfigError, match="ITERATION_HISTORY"):
            DjangoIterationStore().history()
    assert found.id == "defer.E007"
    assert DjangoIterationStore().history() == HISTORY


def test_one_with_quarantined_rows_is_not_forgotten_by_the_sweep(queue: Any, rows: Any) -> None:
    keys = rows(4)
    poison(keys[1])
    handle = begin(_on_error="quarantine", _max_attempts=1)
    drain(queue)
    with later(31):
        assert sweep().counts["forgotten"] == 0
        iterations.before.clear()
        assert handle.progress().shards == [] and handle.retry_quarantined() == 1
        drain(queue)
        assert handle.progress().counters == {"passed": 4}
        assert sweep().counts["forgotten"] == 1


# --- forgotten, and begun again ---------------------------------------------------------------------------------------


def test_only_what_is_over_is_forgotten_and_its_name_is_free_again(queue: Any, rows: Any) -> None:
    keys = rows(3)
    handle = begin()
    assert not handle.forget()
    drain(queue)
    assert handle.forget() and not handle.forget()
    with pytest.raises(UnknownIterationError):
        handle.progress()
    assert begin().begun
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 2) and iterations.finalized == [()] * 2


@pytest.mark.on_sql
def test_forgetting_and_beginning_again_can_be_one_transaction(queue: Any, rows: Any) -> None:
    rows(3)
    handle = begin()
    drain(queue)
    with transaction.atomic():
        assert handle.forget() and begin().begun
    drain(queue)
    assert len(iterations.seen) == 6 and handle.progress().state is IterationState.DONE


def test_tasks_of_a_forgotten_one_have_nothing_to_do_with_the_next(queue: Any, rows: Any) -> None:
    keys = rows(4)
    handle = begin(_shards=1)
    late = [*queue.queued()]
    finish(queue, queue.queued()[0])
    late += queue.queued()
    handle.cancel()
    drain(queue)
    assert handle.forget() and begin(_shards=1).begun
    finish(queue, queue.queued()[0])
    fresh = queue.queued()
    assert {task.name for task in late}.isdisjoint(task.name for task in fresh)
    assert [deliver(task) for task in late] == [Outcome.DONE] * 2 and iterations.seen == []
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1) and iterations.finalized == [()]


def test_an_attempt_that_outlives_its_iteration_writes_nothing_to_the_next(queue: Any, rows: Any) -> None:
    keys = rows(6)
    handle = begin(_shards=1)
    finish(queue, queue.queued()[0])
    (task,) = queue.queued()

    def begin_again() -> None:
        handle.cancel()
        assert handle.forget() and begin(_shards=1).begun
        finish(queue, queue.queued()[-1])
        shard = handle.progress().shards[0]
        new = DjangoIterationStore().acquire(handle.id, 0, shard.generation, due=lambda requeues: clock.now() + 600)
        assert new is not None and new[1].fence == 1, "as the attempt that outlived the old one"

    on_row(4, begin_again)
    assert deliver(task) is Outcome.RETRY
    assert handle.progress().rows == 0 and len(iterations.seen) == 6
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 2) and iterations.finalized == [()]


def test_a_finalize_that_outlives_its_iteration_does_not_end_the_next(queue: Any, rows: Any) -> None:
    rows(2)
    handle = begin(_shards=1)
    for _ in range(2):
        finish(queue, queue.queued()[0])
    (task,) = queue.queued()
    turns = itertools.count()

    def begin_again() -> None:
        if next(turns):
            return
        handle.cancel()
        assert handle.forget() and begin(_shards=1).begun
        finish(queue, queue.queued()[-1])
        handle.pause()

    iterations.finalizing.append(begin_again)
    assert deliver(task) is Outcome.RETRY
    progress = handle.progress()
    assert progress.state is IterationState.PAUSED and len(progress.shards) == 1
    handle.resume()
    drain(queue)
    assert len(iterations.seen) == 4 and handle.progress().rows == 2
