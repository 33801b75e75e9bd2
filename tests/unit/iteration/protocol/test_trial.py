"""`_limit`: the first rows as a trial, and then the others."""

from __future__ import annotations

from typing import Any

import pytest
from testapp import iterations
from testapp.models import Row

from defer_core.errors import OptionError
from defer_core.testing import drain
from defer_iteration import IterationRefusedError, models
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.model.iteration import IterationState
from defer_iteration.rows.memory import MemoryRows
from defer_iteration.stores.routing import store_on

from ..deliveries import finish, on_row, poison

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


def start(limit: Any, shards: int = 4, **options: Any) -> Any:
    return walk(Row.objects.all(), iterations.callback, iterations.finalize, _limit=limit, _shards=shards, **options)


@pytest.mark.parametrize("rebalance", [False, True])
@pytest.mark.parametrize("shards", [1, 2, 4, 7])
@pytest.mark.parametrize("limit", [1, 2, 9, 10, 11, 20, 39])
def test_the_first_rows_are_passed_then_it_pauses_then_the_others(
    queue: Any, rows: Any, limit: int, shards: int, rebalance: bool
) -> None:
    keys = rows(40)
    handle = start(limit, shards, _rebalance=rebalance)
    drain(queue)
    look = handle.progress()
    assert (look.state, look.rows, look.total) == (IterationState.PAUSED, limit, 40)
    assert look.reason == f"The trial of {limit} rows is over: resume() goes on with the others."
    assert sorted(iterations.seen) == keys[:limit] and iterations.finalized == []
    assert handle.resume()
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1)
    assert iterations.finalized == [()] and iterations.counters == [{"passed": 40}]


@pytest.mark.parametrize("limit", [40, 41, 10**9])
def test_without_more_rows_there_is_no_trial(queue: Any, rows: Any, limit: int) -> None:
    keys = rows(40)
    start(limit)
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1) and iterations.finalized == [()]


def test_an_empty_table_is_finalized(queue: Any) -> None:
    start(5)
    drain(queue)
    assert iterations.finalized == [()]


@pytest.mark.on_sql
@pytest.mark.parametrize("limit", [3, 10, 17])
def test_rows_without_an_order_value_and_ties(queue: Any, rows: Any, limit: int) -> None:
    keys = rows(20)
    Row.objects.filter(pk__in=keys[::2]).update(rank=1)
    handle = start(limit, order_field="rank")
    drain(queue)
    assert len(set(iterations.seen)) == limit and handle.progress().state is IterationState.PAUSED
    assert handle.resume()
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1) and iterations.finalized == [()]


@pytest.mark.on_gcloudc
def test_rows_that_stay_together_are_no_trial(queue: Any) -> None:
    with pytest.raises(IterationRefusedError, match=r"_limit=3: on Datastore, rows of one 'rank' stay together"):
        start(3, order_field="rank")
    assert queue.queued() == []


def test_the_shards_have_equal_parts_of_the_trial_and_of_the_rest(queue: Any, rows: Any) -> None:
    rows(400)
    handle = start(40, 4, _rebalance=False)
    finish(queue, queue.queued()[0])
    assert len(queue.queued()) == 4
    drain(queue)
    assert [each.rows for each in handle.progress().shards] == [10] * 4
    handle.resume()
    assert len(queue.queued()) == 4
    drain(queue)
    assert len(iterations.seen) == 400


def test_one_who_pauses_it_in_its_trial_and_resumes_it_afterwards_goes_on(queue: Any, rows: Any) -> None:
    """All shards are done then, and none is the last."""
    keys = rows(20)
    handle = start(5, 1)
    finish(queue, queue.queued()[0])
    on_row(5, handle.pause)
    finish(queue, queue.queued()[0])
    assert handle.progress().state is IterationState.PAUSED and len(iterations.seen) == 5
    assert handle.resume()
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1) and iterations.finalized == [()]


def test_a_row_of_the_trial_that_raises_is_no_end_of_it(queue: Any, rows: Any) -> None:
    keys = rows(20)
    poison(keys[2], times=2)
    handle = start(5, _on_error="fail", _max_attempts=1)
    for _ in range(2):
        drain(queue)
        assert handle.progress().state is IterationState.FAILED and handle.resume()
    drain(queue)
    assert sorted(iterations.seen) == keys[:5] and "trial" in handle.progress().reason
    handle.resume()
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1)


def test_a_row_that_is_set_aside_in_the_trial_stays_so(queue: Any, rows: Any) -> None:
    keys = rows(20)
    poison(keys[4])
    handle = start(5, _on_error="quarantine", _max_attempts=1)
    drain(queue)
    assert [row.key for row in handle.progress().quarantined] == [(keys[4],)]
    assert "trial" in handle.progress().reason
    handle.resume()
    drain(queue)
    assert set(iterations.seen) == set(keys) - {keys[4]} and len(handle.progress().quarantined) == 1


def test_cancelled_after_its_trial(queue: Any, rows: Any) -> None:
    rows(20)
    handle = start(5)
    drain(queue)
    assert handle.cancel() and not handle.resume()
    drain(queue)
    assert len(iterations.seen) == 5 and iterations.finalized == []


def test_rows_of_a_source(queue: Any) -> None:
    handle = walk(twenty, iterations_note, iterations.finalize, _limit=7, _using="default")
    drain(queue)
    assert sorted(noted) == list(range(7)) and handle.progress().state is IterationState.PAUSED
    handle.resume()
    drain(queue)
    assert sorted(noted) == list(range(20))
    noted.clear()


noted: list[int] = []


def iterations_note(row: int) -> None:
    noted.append(row)


def twenty() -> MemoryRows:
    return MemoryRows({number: number for number in range(20)})


class Uncountable(MemoryRows):
    """Rows that cannot be counted."""

    def next_key(self, *given: Any, **named: Any) -> None:
        return None

    def count(self, *given: Any) -> None:  # type: ignore[override]
        return None


def uncountable() -> Uncountable:
    return Uncountable({number: number for number in range(20)})


def test_rows_that_cannot_be_counted_hold_it_with_the_reason(queue: Any) -> None:
    handle = walk(uncountable, iterations_note, iterations.finalize, _limit=7, _using="default")
    drain(queue)
    assert handle.progress().state is IterationState.HELD and "_limit=7" in handle.progress().reason
    assert models.Shard.objects.count() == 0


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "10", float("inf")])
def test_a_limit_that_is_none_is_refused(queue: Any, value: Any) -> None:
    with pytest.raises(OptionError, match=r"_limit is .* it must be a whole number, at least 1"):
        start(value)
    assert queue.queued() == []


def test_more_shards_than_a_transaction_takes_are_refused(queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(store_on("default")), "page", 150)
    with pytest.raises(OptionError, match=r"_shards is 150: it must be below 150 on 'default', with a _limit"):
        start(5, 150)
