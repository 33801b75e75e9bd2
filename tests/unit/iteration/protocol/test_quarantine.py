"""Quarantined rows are called again when a person asks for it."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
from django.db import IntegrityError, OperationalError, transaction
from django.db.models import F
from testapp import iterations
from testapp.models import Row
from unit.iteration.deliveries import poison

from defer_core import execute
from defer_core.spi import Delivery, clock
from defer_core.testing import drain
from defer_django.models import DeferredTask
from defer_iteration import TimeoutException, models
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.stores.django import DjangoIterationStore

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


def test_quarantined_rows_are_run_again(queue: Any, rows: Any) -> None:
    keys = rows(6)
    poison(keys[1], 6)
    poison(keys[5], 5)
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1, _on_error="quarantine")
    drain(queue)
    assert handle.retry_quarantined() == 2
    drain(queue)
    (left,) = handle.progress().quarantined
    assert left.key == (keys[1],) and left.attempts == 6
    assert handle.retry_quarantined() == 1
    drain(queue)
    assert sorted(iterations.seen) == keys
    assert not models.Iteration.objects.exists() and not models.QuarantinedRow.objects.exists()
    assert iterations.finalized == [()]


@pytest.mark.parametrize("atomic", [False, True])
def test_quarantined_rows_run_as_the_walk_did(queue: Any, rows: Any, atomic: bool) -> None:
    """What they count is counted, and under `_atomic` what a failing one has written is undone."""
    keys = rows(4)
    mended: list[int] = []

    def half(row: Any) -> None:
        Row.objects.filter(pk=row.pk).update(hits=F("hits") + 1)
        if row.pk == keys[2] and not mended:
            raise ValueError("half done")

    iterations.before.append(half)
    handle = walk(
        Row.objects.all(), iterations.callback, iterations.finalize,
        _shards=2, _delete_marker=False, _on_error="quarantine", _max_attempts=1, _atomic=atomic,
    )  # fmt: skip
    drain(queue)
    hits = [Row.objects.get(pk=keys[2]).hits]
    handle.retry_quarantined()
    drain(queue)
    hits.append(Row.objects.get(pk=keys[2]).hits)
    assert handle.progress().counters == {"passed": 3}
    mended.append(1)
    handle.retry_quarantined()
    drain(queue)
    hits.append(Row.objects.get(pk=keys[2]).hits)
    assert hits == ([0, 0, 1] if atomic else [1, 2, 3])
    assert handle.progress().counters == {"passed": 4} and handle.progress().quarantined == []


@pytest.mark.on_sql
def test_a_hook_that_fails_after_the_commit_does_not_undo_a_quarantined_row(queue: Any, rows: Any) -> None:
    keys = rows(4)
    poison(keys[0], 1)
    poison(keys[2], 1)
    handle = walk(
        Row.objects.all(), iterations.callback, iterations.finalize,
        _shards=1, _delete_marker=False, _on_error="quarantine", _max_attempts=1, _atomic=True,
    )  # fmt: skip
    drain(queue)

    def hooked(row: Any) -> None:
        Row.objects.filter(pk=row.pk).update(hits=F("hits") + 1)
        transaction.on_commit(refuse)

    def refuse() -> None:
        raise IntegrityError("duplicate key")

    iterations.before.append(hooked)
    assert handle.retry_quarantined() == 2
    drain(queue, on_error="ignore")
    assert handle.progress().quarantined == []
    assert list(Row.objects.order_by("pk").values_list("hits", flat=True)) == [1, 0, 1, 0]


def test_contention_is_not_held_against_a_quarantined_row(queue: Any, rows: Any) -> None:
    keys = rows(2)
    poison(keys[0], 1)
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize, _on_error="quarantine", _max_attempts=1)
    drain(queue)
    poison(keys[0], 1, OperationalError)
    iterations.before[-1], busy = (lambda row: None), ["database is locked"]

    def locked(row: Any) -> None:
        if busy:
            raise OperationalError(busy.pop())

    iterations.before.append(locked)
    handle.retry_quarantined()
    assert drain(queue).retried == 1
    assert iterations.times() == dict.fromkeys(keys, 1)


def test_quarantined_rows_that_are_called_again_before_the_end_are_heard_of_by_finalize(queue: Any, rows: Any) -> None:
    keys = rows(6)
    poison(keys[0], 1)
    handle = walk(
        Row.objects.all(), iterations.callback, iterations.finalize, _shards=2, _on_error="quarantine", _max_attempts=1
    )

    def again(row: Any) -> None:
        if row.pk == keys[5] and handle.progress().quarantined:
            iterations.before.remove(again)
            handle.retry_quarantined()
            raise TimeoutException(countdown=100)

    iterations.before.append(again)
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1)
    assert iterations.counters == [{"passed": 6}]


def test_a_run_of_quarantined_rows_hands_over_before_its_deadline(queue: Any, rows: Any) -> None:
    keys, now = rows(4), [clock.now()]
    again: list[Any] = []

    def slow(row: Any) -> None:
        again.append(row.pk)
        now[0] += 300
        if row.pk == keys[0]:
            raise ValueError

    for key in keys:
        poison(key)
    handle = walk(
        Row.objects.all(), iterations.callback, iterations.finalize, _shards=1, _on_error="quarantine", _max_attempts=1
    )
    drain(queue)
    assert len(handle.progress().quarantined) == 4
    iterations.before[:] = [slow]
    with clock.replaced(lambda: now[0]):
        handle.retry_quarantined()
        assert drain(queue).done == 2, "two rows of five minutes each, and the rest by a task of its own"
    assert sorted(again) == keys and sorted(iterations.seen) == keys[1:]
    assert [row.key for row in handle.progress().quarantined] == [(keys[0],)]


def test_a_retry_of_quarantined_rows_that_fails_is_kept_as_any_task(queue: Any, rows: Any) -> None:
    poison(rows(1)[0])
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize, _on_error="quarantine", _max_attempts=1)
    drain(queue)
    assert handle.retry_quarantined() == 1
    [task] = queue.queued()
    lost = patch.object(DjangoIterationStore, "quarantined", side_effect=OperationalError("lost"))
    with lost, pytest.raises(OperationalError):
        execute(task.message.body, Delivery(target="cloud", retry_count=0))
    assert "OperationalError: lost" in DeferredTask.objects.get(state="failing").last_error
