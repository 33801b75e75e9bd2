"""`_atomic=True`: an increment a row ends at exactly one for every row, whatever happens in between."""

from __future__ import annotations

import itertools
import random
from contextlib import suppress
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.db.models import F, ProtectedError
from testapp import iterations
from testapp.models import Child, Ledger, Row

from defer_core import Outcome, execute
from defer_core.spi import Delivery, clock
from defer_core.testing import drain
from defer_iteration import TimeoutException, models
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.rows import queryset

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


class Killed(BaseException):
    """The process dies."""


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Small pages, and a checkpoint every few rows."""
    monkeypatch.setattr(queryset, "PAGE", 6)
    now = itertools.count(1_000_000)
    with clock.replaced(lambda: float(next(now)) / 3):
        yield


@pytest.fixture
def atomic(queue: Any, rows: Any) -> Any:
    """Start an atomic iteration over so many rows."""

    def hit(row: Any) -> None:
        Row.objects.filter(pk=row.pk).update(hits=F("hits") + 1)

    iterations.before.append(hit)

    def start(number: int, **options: Any) -> list[Any]:
        keys = rows(number)
        walk(Row.objects.all(), iterations.callback, iterations.finalize, _atomic=True, **options)
        return keys  # type: ignore[no-any-return]

    return start


def hits() -> set[int]:
    return set(Row.objects.values_list("hits", flat=True))


def run(queue: Any, survive: tuple[type[BaseException], ...] = (Killed,)) -> int:
    """Deliver until the queue is empty; returns how often a delivery died."""
    died = 0
    for _ in range(2000):
        tasks = queue.queued()
        if not tasks:
            return died
        try:
            if execute(tasks[0].message.body, Delivery(task_name=tasks[0].name)) is not Outcome.RETRY:
                queue.remove(tasks[0])
        except survive:
            died += 1
    raise AssertionError("the queue does not run empty")


def test_every_row_is_hit_once(queue: Any, atomic: Any) -> None:
    atomic(40, _shards=3)
    run(queue)
    assert hits() == {1}
    assert iterations.finalized == [()] and iterations.counters == [{"passed": 40}]


@pytest.mark.parametrize("seed", range(10))
def test_kills_at_random_moments(queue: Any, atomic: Any, seed: int) -> None:
    dice = random.Random(seed)

    def maybe_die(row: Any) -> None:
        if dice.random() < 0.08:
            raise Killed

    atomic(40, _shards=2)
    iterations.before.append(maybe_die)
    assert run(queue) > 0
    assert hits() == {1}
    assert iterations.finalized == [()] and iterations.counters == [{"passed": 40}]


@pytest.mark.parametrize("error", [ValueError, TimeoutException])
def test_a_row_that_raises_leaves_nothing_of_itself_and_loses_nothing_before_it(
    queue: Any, atomic: Any, error: type[Exception]
) -> None:
    keys = atomic(20, _shards=1)
    raised = []

    def raise_after_the_hit(row: Any) -> None:
        if row.pk in (keys[0], keys[4], keys[5], keys[19]) and raised.count(row.pk) < 3:
            raised.append(row.pk)
            raise error

    iterations.before.append(raise_after_the_hit)
    run(queue)
    assert len(raised) == 12  # each row three times
    assert hits() == {1}
    assert iterations.finalized == [()] and iterations.counters == [{"passed": 20}]


def test_a_quarantined_row_has_no_effect(queue: Any, atomic: Any) -> None:
    keys = atomic(10, _shards=1, _on_error="quarantine", _max_attempts=2)

    def poison(row: Any) -> None:
        if row.pk == keys[4]:
            raise ValueError

    iterations.before.append(poison)
    run(queue)
    assert dict(Row.objects.values_list("pk", "hits")) == dict.fromkeys(keys, 1) | {keys[4]: 0}
    assert models.QuarantinedRow.objects.count() == 1
    assert iterations.finalized == [()]


def test_a_row_that_raises_while_those_before_another_are_passed_again(queue: Any, atomic: Any) -> None:
    keys = atomic(6, _shards=1, _on_error="quarantine", _max_attempts=1)

    def raise_in_turn(row: Any) -> None:
        """The fifth row always raises; the third does so the second time only."""
        calls.append(row.pk)
        if row.pk == keys[4] or (row.pk == keys[2] and calls.count(row.pk) == 2):
            raise ValueError

    calls: list[Any] = []
    iterations.before.append(raise_in_turn)
    with clock.replaced(lambda: 1_000_000.0):
        run(queue)
    assert dict(Row.objects.values_list("pk", "hits")) == dict.fromkeys(keys, 1) | {keys[2]: 0, keys[4]: 0}
    assert models.QuarantinedRow.objects.count() == 2


def test_a_superseded_attempt_leaves_nothing(queue: Any, atomic: Any) -> None:
    atomic(5, _shards=1)
    run_plan, body = queue.queued()[0], None
    execute(run_plan.message.body, Delivery())
    queue.remove(run_plan)
    body = queue.queued()[0].message.body
    models_before = []

    def take_over(row: Any) -> None:
        if not models_before:
            models_before.append(row.pk)
            models.Shard.objects.update(fence=F("fence") + 1)

    iterations.before.append(take_over)
    # the fence moves inside this attempt's own transaction, so that its checkpoint fails, and the move with it
    assert execute(body, Delivery()) is Outcome.RETRY
    assert hits() == {0}
    drain(queue)
    assert hits() == {1}


def test_a_database_error_that_the_callback_swallows_is_that_rows_failure(queue: Any, atomic: Any) -> None:
    """The page's transaction cannot be used any more, so the rows after it must not be blamed, nor wait for ever."""
    Ledger.objects.create(key="taken")

    def swallow(row: Any) -> None:
        if row.pk == keys[3]:
            with suppress(IntegrityError):
                Ledger.objects.create(key="taken")

    iterations.before.append(swallow)
    keys = atomic(10, _shards=1, _on_error="quarantine", _max_attempts=2, _delete_marker=False)
    drain(queue)
    [row] = models.QuarantinedRow.objects.all()
    assert "atomic" in row.error
    assert iterations.finalized == [()]
    assert dict(Row.objects.values_list("pk", "hits")) == {key: int(key != keys[3]) for key in keys}


@pytest.mark.on_sql
def test_what_only_the_commit_refuses_is_that_rows_failure(queue: Any, atomic: Any) -> None:
    """A foreign key is looked at when the page is committed, which does not say whose it is."""

    def dangle(row: Any) -> None:
        if row.pk == keys[4]:
            Child.objects.create(row_id=keys[-1] + 1000)

    iterations.before.append(dangle)
    keys = atomic(10, _shards=1, _on_error="quarantine", _max_attempts=2, _delete_marker=False)
    with clock.replaced(lambda: 1_000_000.0):
        drain(queue)
    [row] = models.QuarantinedRow.objects.all()
    assert "IntegrityError" in row.error and row.attempts == 2
    assert iterations.finalized == [()] and iterations.counters == [{"passed": 9}]
    assert dict(Row.objects.values_list("pk", "hits")) == {key: int(key != keys[4]) for key in keys}


@pytest.mark.on_sql
@pytest.mark.parametrize("error", [IntegrityError("duplicate key"), ProtectedError("protected", set()), OSError(5)])
@pytest.mark.parametrize("times", [1, 10**9])
@pytest.mark.parametrize("at", [2, 5, 11])
def test_an_error_after_the_commit_is_no_refused_commit(
    queue: Any, atomic: Any, error: Exception, times: int, at: int
) -> None:
    """A hook's error fails its attempt, and the next one goes on after the page."""
    raised: list[int] = []

    def hook() -> None:
        if len(raised) < times:
            raised.append(1)
            raise error

    iterations.before.append(lambda row: row.pk == keys[at] and transaction.on_commit(hook))
    keys = atomic(12, _shards=1, _on_error="quarantine", _max_attempts=1, _delete_marker=False)
    drain(queue, max_attempts=4)
    assert hits() == {1} and raised == [1]
    assert not models.QuarantinedRow.objects.exists()
    assert iterations.counters == [{"passed": 12}]


@pytest.mark.on_sql
def test_a_commit_that_is_refused_is_traced_to_its_row_beside_a_hook_that_fails(queue: Any, atomic: Any) -> None:
    def hook() -> None:
        raise IntegrityError("of the hook")

    def dangle(row: Any) -> None:
        if row.pk == keys[4]:
            Child.objects.create(row_id=keys[-1] + 1000)
        if row.pk == keys[1]:
            transaction.on_commit(hook)

    iterations.before.append(dangle)
    keys = atomic(10, _shards=1, _on_error="quarantine", _max_attempts=2, _delete_marker=False)
    with clock.replaced(lambda: 1_000_000.0):
        drain(queue, max_attempts=5)
    [row] = models.QuarantinedRow.objects.all()
    assert "IntegrityError" in row.error and "of the hook" not in row.error
    assert dict(Row.objects.values_list("pk", "hits")) == {key: int(key != keys[4]) for key in keys}
