"""What every IterationStore promises, run against every adapter."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from decimal import Decimal
from importlib.util import find_spec
from typing import Any

import aliases
import pytest
from django.db import connections

from defer_core.record import new_id
from defer_iteration.model.iteration import Iteration, IterationOptions, IterationState, QuarantinedRow
from defer_iteration.model.shard import KeyRange, Shard, Stalled, cut
from defer_iteration.stores import routing
from defer_iteration.stores.base import Completion, IterationStore

NEW, RUNNING, PAUSED, HELD, FAILED, CANCELLED, FINALIZING, DONE = IterationState
NOW = 1_700_000_000.0
LATER = NOW + 3600
needs_gcloudc = pytest.mark.skipif(find_spec("gcloudc") is None, reason="gcloudc is not installed: it needs Django < 6")


@pytest.fixture(scope="module")
def open_aliases(django_db_blocker: Any) -> Iterator[ExitStack]:
    """The further databases of this module, closed at its end."""
    with django_db_blocker.unblock(), ExitStack() as stack:
        yield stack


def on_alias(request: pytest.FixtureRequest, name: str) -> IterationStore:
    """The store on a further database, empty."""
    if name not in connections:
        stack = request.getfixturevalue("open_aliases")
        if name == "contract_datastore":
            stack.enter_context(aliases.emulator(request.getfixturevalue("firestore")))
            database = aliases.datastore_database("contract")
        else:
            database = aliases.postgres_database(request.getfixturevalue("postgres"))
        stack.enter_context(aliases.alias(name, database))
    aliases.empty(name)
    return routing.store_on(name)


def memory(request: pytest.FixtureRequest) -> IterationStore:
    from defer_core.stores.memory import MemoryStore
    from defer_iteration.stores.memory import MemoryIterationStore

    return MemoryIterationStore(MemoryStore())


ADAPTERS = {
    "memory": memory,
    "django": lambda request: routing.store_on("default"),
    "django on postgresql": lambda request: on_alias(request, "contract_postgres"),
    "django on datastore": lambda request: on_alias(request, "contract_datastore"),
}
MARKS = {"django": pytest.mark.django_db(transaction=True), "django on datastore": [pytest.mark.gcloudc, needs_gcloudc]}
"""What must be known of a test before its fixtures are made."""


@pytest.fixture(params=[pytest.param(name, marks=MARKS.get(name, ())) for name in sorted(ADAPTERS)])
def store(request: pytest.FixtureRequest) -> IterationStore:
    return ADAPTERS[request.param](request)


def an_iteration(**fields: Any) -> Iteration:
    given = {"id": new_id(), "job": b"\xc1job", "label": "shop.tasks:ship", "created": NOW, "due": NOW + 60}
    return Iteration(**(given | fields))


def some_shards(iteration_id: str, number: int) -> list[Shard]:
    """Shards of neighbouring ranges."""
    bounds = [None, *((index * 10,) for index in range(1, number)), (number * 10,)]
    return [
        Shard(
            iteration_id=iteration_id,
            index=index,
            range=KeyRange(lower=bounds[index], upper=bounds[index + 1], closed=index == number - 1),
            due=NOW + 60,
        )
        for index in range(number)
    ]


def running(store: IterationStore, number: int = 2, **fields: Any) -> tuple[str, list[Shard]]:
    """A running iteration, and its shards, none of which is acquired."""
    iteration = an_iteration(**fields)
    store.create(iteration)
    shards = some_shards(iteration.id, number)
    assert store.plan(iteration, shards, total=number * 10)
    return iteration.id, shards


def acquired(store: IterationStore, number: int = 2, **fields: Any) -> list[Shard]:
    """The shards of a running iteration, each acquired once."""
    _, shards = running(store, number, **fields)
    return [acquire(store, each) for each in shards]


def acquire(store: IterationStore, shard: Shard, generation: int = 0) -> Shard:
    found = store.acquire(shard.iteration_id, shard.index, generation, due=lambda requeues: LATER + requeues)
    assert found is not None
    return found[1]


def the(store: IterationStore, iteration_id: str) -> Iteration:
    found = store.get(iteration_id)
    assert found is not None
    return found


def state(store: IterationStore, shard: Shard) -> IterationState:
    return the(store, shard.iteration_id).state


def a_row(shard: Shard, key: Any, **fields: Any) -> QuarantinedRow:
    given = {"iteration_id": shard.iteration_id, "index": shard.index, "key": key, "error": "ValueError", "attempts": 5}
    return QuarantinedRow(**(given | fields))


# --- create, get, list, delete ----------------------------------------------------------------------------------------


def test_an_iteration_comes_back_as_it_was_created(store: IterationStore) -> None:
    options = IterationOptions(
        queue="mail", service="s", version="v", instance="i", dispatch_deadline=30.0, shards=7, order_field="number",
        delete_marker=False, buffer_time=2.5, atomic=True, on_error="quarantine", max_attempts=3, rebalance=True,
    )  # fmt: skip
    iteration = an_iteration(options=options, job=bytes(range(256)), name="Réévaluer 2026 \N{SNOWMAN}", rows=2**40)
    assert store.create(iteration) is None
    assert store.get(iteration.id) == iteration


def test_an_id_is_created_once_and_the_caller_told_what_is_there(store: IterationStore) -> None:
    iteration_id, _ = running(store)
    there = the(store, iteration_id)
    assert store.create(an_iteration(id=iteration_id, label="another")) == there
    with store.transaction():
        assert store.create(an_iteration(id=iteration_id, label="another")) == there
        other = an_iteration()
        assert store.create(other) is None, "the transaction goes on"
    assert the(store, iteration_id) == there and the(store, other.id) == other


def test_of_those_that_create_an_id_at_once_one_does(store: IterationStore) -> None:
    iteration, number = an_iteration(), 4
    together = threading.Barrier(number)

    def create(index: int) -> Iteration | None:
        try:
            together.wait(30)
            return store.transact(lambda: store.create(replace(iteration, label=f"call {index}")))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(number) as pool:
        found = list(pool.map(create, range(number)))
    there = the(store, iteration.id)
    assert there.label == f"call {found.index(None)}"
    assert sorted(found, key=bool) == [None, *[there] * (number - 1)]


def test_what_is_not_there_is_none_or_empty(store: IterationStore) -> None:
    gone = new_id()
    assert store.get(gone) is None
    assert store.shards(gone) == [] and store.quarantined(gone) == []
    assert store.acquire(gone, 0, 0, due=lambda requeues: LATER) is None
    assert store.acquire_whole(gone, NEW, due=lambda requeues: LATER) is None
    assert not store.plan(an_iteration(id=gone), some_shards(gone, 1), total=1) and store.shards(gone) == []
    assert store.control(gone, PAUSED, when=(RUNNING,)) is None
    assert store.renew(gone, due=NOW) == []
    assert store.checkpoint(some_shards(gone, 1)[0]) is None
    assert store.hand_over(some_shards(gone, 1)[0]) is None
    assert store.complete(some_shards(gone, 1)[0], due=NOW) is Completion.LOST
    assert not store.requeue(Stalled(iteration_id=gone), due=NOW)
    assert not store.requeue(Stalled(iteration_id=gone, index=0), due=NOW)
    store.delete(gone)
    assert store.list() == []


def test_list_pages_by_id(store: IterationStore) -> None:
    made = sorted((an_iteration() for _ in range(5)), key=lambda each: each.id)
    for each in made:
        store.create(each)
    assert [each.id for each in store.list(limit=3)] == [each.id for each in made[:3]]
    assert [each.id for each in store.list(limit=3, after=made[2].id)] == [each.id for each in made[3:]]


def test_delete_takes_all_of_one_iteration_and_nothing_of_another(store: IterationStore) -> None:
    first, second = acquired(store), acquired(store)
    for shards in (first, second):
        assert store.checkpoint(shards[0], [a_row(shards[0], (1,))])
    store.delete(first[0].iteration_id)
    gone, left = first[0].iteration_id, second[0].iteration_id
    assert store.get(gone) is None and store.shards(gone) == [] and store.quarantined(gone) == []
    assert store.get(left) is not None and len(store.shards(left)) == 2 and len(store.quarantined(left)) == 1


def test_a_transaction_that_rolls_back_leaves_nothing(store: IterationStore) -> None:
    iteration = an_iteration()
    assert not store.in_transaction()
    with pytest.raises(ZeroDivisionError), store.transaction():
        assert store.in_transaction()
        store.create(iteration)
        raise ZeroDivisionError
    assert not store.in_transaction()
    assert store.get(iteration.id) is None


def test_a_transaction_sees_its_own_writes(store: IterationStore) -> None:
    iteration = an_iteration()
    with store.transaction():
        store.create(iteration)
        assert store.plan(iteration, some_shards(iteration.id, 2), total=2)
        assert the(store, iteration.id).state is RUNNING


def test_all_of_a_transaction_is_done_by_transact(store: IterationStore) -> None:
    iteration = an_iteration()

    def work() -> str:
        assert store.in_transaction()
        store.create(iteration)
        return "result"

    assert store.transact(work) == "result"
    assert store.get(iteration.id) == iteration


# --- plan -------------------------------------------------------------------------------------------------------------


def test_plan_writes_the_shards_and_runs(store: IterationStore) -> None:
    iteration_id, shards = running(store, 12)
    assert store.shards(iteration_id) == shards
    found = the(store, iteration_id)
    assert (found.state, found.total) == (RUNNING, 120)


@pytest.mark.parametrize(
    "bounds",
    [
        KeyRange(lower=("é", 3), upper=(b"x", -1), closed=True),
        KeyRange(lower=(1.5,), nulls=True),
        KeyRange(),
    ],
)
def test_ranges_come_back_as_they_were(store: IterationStore, bounds: KeyRange) -> None:
    iteration = an_iteration()
    store.create(iteration)
    assert store.plan(iteration, [Shard(iteration_id=iteration.id, index=0, range=bounds)], total=None)
    assert store.shards(iteration.id)[0].range == bounds
    assert the(store, iteration.id).total is None


def test_a_second_plan_writes_nothing(store: IterationStore) -> None:
    iteration_id, shards = running(store, 3)
    assert not store.plan(the(store, iteration_id), some_shards(iteration_id, 5), total=5)
    assert store.shards(iteration_id) == shards and the(store, iteration_id).total == 30


@pytest.mark.parametrize("where", [PAUSED, CANCELLED])
def test_a_plan_of_what_is_stopped_writes_nothing(store: IterationStore, where: IterationState) -> None:
    iteration = an_iteration()
    store.create(iteration)
    assert store.control(iteration.id, where, when=(NEW,))
    assert not store.plan(iteration, some_shards(iteration.id, 2), total=2)
    assert store.shards(iteration.id) == [] and the(store, iteration.id).state is where


def test_an_older_attempt_plans_nothing(store: IterationStore) -> None:
    iteration = an_iteration()
    store.create(iteration)
    old = store.acquire_whole(iteration.id, NEW, due=lambda requeues: LATER)
    new = store.acquire_whole(iteration.id, NEW, due=lambda requeues: LATER)
    assert old is not None and new is not None
    assert not store.plan(old, some_shards(iteration.id, 2), total=2)
    assert store.shards(iteration.id) == [] and the(store, iteration.id).state is NEW
    assert store.plan(new, some_shards(iteration.id, 3), total=3)
    assert len(store.shards(iteration.id)) == 3


# --- acquiring, fences and generations --------------------------------------------------------------------------------


def test_acquiring_takes_the_next_fence_and_notes_when_it_is_stalled(store: IterationStore) -> None:
    iteration_id, (shard, _) = running(store)
    found = store.acquire(iteration_id, 0, 0, due=lambda requeues: LATER + requeues)
    assert found is not None
    assert found == (the(store, iteration_id), replace(shard, fence=1, due=LATER))
    assert store.shards(iteration_id)[0] == found[1]
    assert acquire(store, shard).fence == 2


@pytest.mark.parametrize("generation", [-1, 1])
def test_a_wrong_generation_acquires_nothing(store: IterationStore, generation: int) -> None:
    iteration_id, (shard, _) = running(store)
    assert store.acquire(iteration_id, 0, generation, due=lambda requeues: LATER) is None
    assert store.acquire(iteration_id, 7, 0, due=lambda requeues: LATER) is None
    assert store.shards(iteration_id)[0] == shard


@pytest.mark.parametrize("where", [PAUSED, HELD, FAILED, CANCELLED])
def test_nothing_is_acquired_of_an_iteration_that_does_not_run(store: IterationStore, where: IterationState) -> None:
    iteration_id, (shard, _) = running(store)
    assert store.control(iteration_id, where, when=(RUNNING,))
    assert store.acquire(iteration_id, 0, 0, due=lambda requeues: LATER) is None
    assert store.shards(iteration_id)[0] == shard


def test_a_shard_that_is_done_is_not_acquired(store: IterationStore) -> None:
    shard, _ = acquired(store)
    assert store.complete(shard, due=NOW) is Completion.OPEN
    assert store.acquire(shard.iteration_id, 0, 0, due=lambda requeues: LATER) is None


def test_an_older_fence_writes_nothing(store: IterationStore) -> None:
    old, _ = acquired(store)
    new = acquire(store, old)
    assert store.checkpoint(replace(old, rows=9), [a_row(old, (1,))]) is None
    assert store.hand_over(replace(old, rows=9)) is None
    assert store.complete(replace(old, rows=9), due=NOW) is Completion.LOST
    assert store.shards(old.iteration_id)[0] == new
    assert store.quarantined(old.iteration_id) == []
    assert store.checkpoint(new) is RUNNING


def test_an_older_generation_writes_nothing(store: IterationStore) -> None:
    old, _ = acquired(store)
    assert store.hand_over(old) is RUNNING
    new = store.shards(old.iteration_id)[0]
    assert new.generation == 1
    assert store.checkpoint(replace(old, rows=9)) is None
    assert store.hand_over(replace(old, rows=9)) is None
    assert store.complete(replace(old, rows=9), due=NOW) is Completion.LOST
    assert store.shards(old.iteration_id)[0] == new


def test_acquire_whole_notes_the_attempt_in_its_state_only(store: IterationStore) -> None:
    iteration = an_iteration()
    store.create(iteration)
    found = store.acquire_whole(iteration.id, NEW, due=lambda requeues: LATER + requeues)
    assert found is not None and found.due == LATER and found == the(store, iteration.id)
    assert store.acquire_whole(iteration.id, FINALIZING, due=lambda requeues: 0.0) is None
    assert the(store, iteration.id) == found


# --- checkpoint and hand-over -----------------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_as_it_was_written(store: IterationStore) -> None:
    shard, other = acquired(store)
    done = replace(
        shard, position=("x", 7), rows=12, counters={"passed": 12, "é": 1}, failing=("y", 8), attempts=2,
        error="Traceback …\n" * 50, due=LATER + 5, requeues=3,
    )  # fmt: skip
    assert store.checkpoint(done) is RUNNING
    assert store.shards(shard.iteration_id) == [done, other]
    again = replace(done, failing=None, position=("z", 9), requeues=0)
    assert store.checkpoint(again) is RUNNING
    assert store.shards(shard.iteration_id)[0] == again


@pytest.mark.parametrize("where", [PAUSED, HELD, FAILED, CANCELLED])
def test_a_stop_is_told_to_a_checkpoint_which_is_written(store: IterationStore, where: IterationState) -> None:
    shard, _ = acquired(store)
    assert store.control(shard.iteration_id, where, when=(RUNNING,))
    assert store.checkpoint(replace(shard, rows=3)) is where
    assert store.shards(shard.iteration_id)[0] == replace(shard, rows=3)


def test_a_hand_over_is_a_checkpoint_of_the_next_generation(store: IterationStore) -> None:
    shard, _ = acquired(store)
    assert store.hand_over(replace(shard, position=(4,), rows=4, counters={"a": 1}), [a_row(shard, (3,))]) is RUNNING
    expected = replace(shard, position=(4,), rows=4, counters={"a": 1}, generation=1)
    assert store.shards(shard.iteration_id)[0] == expected
    assert len(store.quarantined(shard.iteration_id)) == 1
    assert acquire(store, shard, generation=1) == replace(expected, fence=2, due=LATER)


def test_a_hand_over_while_it_stands_still_keeps_the_generation(store: IterationStore) -> None:
    shard, _ = acquired(store)
    assert store.control(shard.iteration_id, PAUSED, when=(RUNNING,))
    assert store.hand_over(replace(shard, rows=4)) is PAUSED
    assert store.shards(shard.iteration_id)[0] == replace(shard, rows=4)


# --- complete ---------------------------------------------------------------------------------------------------------


def test_the_last_completion_merges_the_counters_and_finalizes(store: IterationStore) -> None:
    first, second, third = acquired(store, 3)
    assert store.complete(replace(second, rows=5, counters={"a": 5}), due=LATER) is Completion.OPEN
    assert store.complete(replace(first, rows=3, counters={"a": 3, "b": 1}), due=LATER) is Completion.OPEN
    assert state(store, first) is RUNNING
    assert store.complete(replace(third, counters={"b": 2}, position=(9,)), due=LATER + 1) is Completion.LAST
    found = the(store, first.iteration_id)
    assert (found.state, found.generation, found.due, found.requeues) == (FINALIZING, 1, LATER + 1, 0)
    assert found.rows == 8
    assert dict(found.counters) == {"a": 8, "b": 3}
    assert [(each.done, each.rows) for each in store.shards(first.iteration_id)] == [(True, 3), (True, 5), (True, 0)]


def test_a_completion_may_quarantine(store: IterationStore) -> None:
    (shard,) = acquired(store, 1)
    assert store.complete(shard, [a_row(shard, (2,))], due=LATER) is Completion.LAST
    assert [each.key for each in store.quarantined(shard.iteration_id)] == [(2,)]


def test_a_shard_completes_once(store: IterationStore) -> None:
    first, second = acquired(store)
    assert store.complete(first, due=LATER) is Completion.OPEN
    assert store.complete(first, due=LATER) is Completion.LOST
    assert store.complete(second, due=LATER) is Completion.LAST
    assert store.complete(second, due=LATER) is Completion.LOST
    assert the(store, first.iteration_id).generation == 1


@pytest.mark.parametrize("where", [PAUSED, HELD])
def test_the_last_completion_of_a_stopped_iteration_is_found_on_resuming(
    store: IterationStore, where: IterationState
) -> None:
    (shard,) = acquired(store, 1)
    assert store.control(shard.iteration_id, where, when=(RUNNING,))
    assert store.complete(replace(shard, counters={"a": 2}), due=LATER) is Completion.OPEN
    assert state(store, shard) is where
    assert store.control(shard.iteration_id, RUNNING, when=(where,), due=LATER)
    found = the(store, shard.iteration_id)
    assert (found.state, dict(found.counters), found.rows, found.due) == (FINALIZING, {"a": 2}, 0, LATER)


def test_the_completion_of_what_is_gone_is_lost(store: IterationStore) -> None:
    (shard,) = acquired(store, 1)
    store.delete(shard.iteration_id)
    assert store.complete(shard, due=LATER) is Completion.LOST
    assert store.get(shard.iteration_id) is None and store.shards(shard.iteration_id) == []


# --- a trial ----------------------------------------------------------------------------------------------------------


BEYOND = KeyRange(lower=(100,), upper=(200,), closed=True)


def in_trial(store: IterationStore, number: int) -> list[Shard]:
    """The shards of a running iteration, each acquired once; the first one has rows beyond the trial."""
    iteration = an_iteration(options=IterationOptions(limit=5))
    store.create(iteration)
    first, *others = some_shards(iteration.id, number)
    assert store.plan(iteration, [replace(first, rest=BEYOND), *others], total=number * 10)
    return [acquire(store, each) for each in (first, *others)]


def test_the_range_beyond_the_trial_comes_back_as_it_was(store: IterationStore) -> None:
    first, second = in_trial(store, 2)
    assert (first.rest, second.rest) == (BEYOND, None)
    assert store.checkpoint(replace(first, position=(1,))) is RUNNING
    found = store.shard(first.iteration_id, 0)
    assert found is not None and found.rest == BEYOND


@pytest.mark.parametrize("last", [0, 1])
def test_the_last_completion_of_a_trial_pauses_it_with_the_ranges_beyond(store: IterationStore, last: int) -> None:
    shards = in_trial(store, 2)
    rows = [replace(each, position=(1,), rows=3, counters={"a": 3}) for each in shards]
    assert store.complete(rows[1 - last], due=LATER) is Completion.OPEN
    assert store.complete(rows[last], [a_row(shards[last], (2,))], due=LATER) is Completion.OPEN
    found = the(store, shards[0].iteration_id)
    assert (found.state, found.resumes, found.counters) == (PAUSED, RUNNING, {}) and "trial of 5 rows" in found.reason
    first, second = store.shards(found.id)
    assert (first.range, first.rest, first.done, first.position) == (BEYOND, None, False, None)
    assert (first.generation, first.rows, first.counters, first.due) == (1, 3, {"a": 3}, LATER)
    assert second.done and len(store.quarantined(found.id)) == 1
    assert store.complete(rows[last], due=LATER) is Completion.LOST
    assert store.control(found.id, RUNNING, when=(PAUSED,), due=LATER)
    assert [each.index for each in store.renew(found.id, due=LATER)] == [0]
    assert store.complete(acquire(store, first, generation=2), due=LATER) is Completion.LAST
    assert the(store, found.id).counters == {"a": 6}


def test_resuming_goes_beyond_a_trial_that_was_over_while_it_stood_still(store: IterationStore) -> None:
    first, second = in_trial(store, 2)
    assert store.complete(first, due=LATER) is Completion.OPEN
    assert store.control(first.iteration_id, PAUSED, when=(RUNNING,))
    assert store.complete(second, due=LATER) is Completion.OPEN
    assert store.control(first.iteration_id, RUNNING, when=(PAUSED,), due=LATER)
    assert state(store, first) is RUNNING
    assert [each.index for each in store.renew(first.iteration_id, due=LATER)] == [0]
    assert [(each.done, each.rest) for each in store.shards(first.iteration_id)] == [(False, None), (True, None)]


# --- division ---------------------------------------------------------------------------------------------------------


def done(store: IterationStore, shard: Shard, **fields: Any) -> Shard:
    """A shard once it is done."""
    assert store.complete(replace(shard, **fields), due=NOW) is Completion.OPEN
    found = store.shard(shard.iteration_id, shard.index)
    assert found is not None and found.done
    return found


def test_slots_are_counted_once_one_is_done(store: IterationStore) -> None:
    first, second, _ = acquired(store, 3)
    other = acquired(store, 2)
    done(store, other[0])
    assert store.slots(first.iteration_id) == (0, 0)
    done(store, first)
    assert store.slots(first.iteration_id) == (1, 2)
    done(store, second)
    assert store.slots(first.iteration_id) == (2, 1)


def test_a_part_goes_to_a_shard_that_is_done_in_its_next_generation(store: IterationStore) -> None:
    first, second, third = acquired(store, 3)
    idle = done(store, first, position=(9,), rows=7, counters={"a": 1}, failing=(3,), attempts=2, error="E", errors=1)
    donor = replace(second, position=(12,), rows=2, attempts=1, failing=(13,), error="ValueError")
    kept, given = cut(donor.range, [(15,)])
    divided = store.divide(donor, [kept, given], due=NOW + 99)
    refilled = replace(
        idle, range=given, generation=1, position=None, failing=None, attempts=0, error="", errors=0, due=NOW + 99,
        done=False,
    )  # fmt: skip
    assert divided == [replace(donor, range=kept), refilled]
    assert store.shards(first.iteration_id) == [refilled, replace(donor, range=kept), third]
    assert store.acquire(first.iteration_id, 0, 0, due=lambda requeues: LATER) is None
    assert acquire(store, first, generation=1).rows == 7
    assert store.checkpoint(first) is None  # the attempt at its earlier range
    assert store.checkpoint(replace(donor, range=kept, position=(14,))) is RUNNING


def test_the_last_part_takes_what_is_over(store: IterationStore) -> None:
    *others, last = acquired(store, 4)
    for shard in others[1:]:
        done(store, shard)
    parts = cut(last.range, [(32,), (34,), (36,), (38,)])
    divided = store.divide(last, parts, due=NOW)
    assert divided is not None
    assert [each.range for each in divided] == cut(last.range, [(32,), (34,)])
    assert [each.range.closed for each in divided] == [False, False, True]


def test_a_divided_iteration_is_over_once_every_part_is(store: IterationStore) -> None:
    first, second = acquired(store, 2)
    done(store, first, rows=1, counters={"n": 1})
    divided = store.divide(replace(second, rows=2, counters={"n": 2}), cut(second.range, [(15,)]), due=NOW)
    assert divided is not None
    donor, part = divided
    assert store.complete(donor, due=NOW) is Completion.OPEN
    part = acquire(store, part, generation=1)
    merged = {**part.counters, "n": 5}
    assert store.complete(replace(part, rows=5, counters=merged), due=NOW) is Completion.LAST
    assert the(store, first.iteration_id).counters == {"n": 7}
    assert sum(each.rows for each in store.shards(first.iteration_id)) == 7


@pytest.mark.parametrize("where", [PAUSED, HELD, FAILED, CANCELLED])
def test_an_iteration_that_is_stopped_is_not_divided(store: IterationStore, where: IterationState) -> None:
    first, second = acquired(store, 2)
    done(store, first)
    assert store.control(first.iteration_id, where, when=(RUNNING,))
    before = store.shards(first.iteration_id)
    donor = replace(second, rows=3)
    assert store.divide(donor, cut(second.range, [(15,)]), due=NOW) == [donor]
    assert store.shards(first.iteration_id) == before


def test_a_shard_that_is_taken_meanwhile_is_not_given_twice(store: IterationStore) -> None:
    first, second, third = acquired(store, 3)
    done(store, first)
    divided = store.divide(second, cut(second.range, [(15,)]), due=NOW)
    assert divided is not None and len(divided) == 2
    before = store.shards(first.iteration_id)
    assert store.divide(third, cut(third.range, [(25,)]), due=NOW) == [third]
    assert store.shards(first.iteration_id) == before


def test_an_attempt_that_was_taken_over_divides_nothing(store: IterationStore) -> None:
    first, second = acquired(store, 2)
    done(store, first)
    acquire(store, second)
    before = store.shards(first.iteration_id)
    assert store.divide(second, cut(second.range, [(15,)]), due=NOW) is None
    assert store.shards(first.iteration_id) == before
    store.delete(first.iteration_id)
    assert store.divide(second, cut(second.range, [(15,)]), due=NOW) is None
    assert store.slots(first.iteration_id) == (0, 0)


# --- control ----------------------------------------------------------------------------------------------------------


def test_control_returns_what_was_and_moves(store: IterationStore) -> None:
    iteration_id, _ = running(store)
    before = the(store, iteration_id)
    assert store.control(iteration_id, HELD, when=(RUNNING, NEW), reason="the disk is full") == before
    found = the(store, iteration_id)
    assert (found.state, found.resumes, found.reason, found.finished) == (HELD, RUNNING, "the disk is full", None)


def test_control_of_another_state_does_nothing(store: IterationStore) -> None:
    iteration_id, _ = running(store)
    before = the(store, iteration_id)
    assert store.control(iteration_id, PAUSED, when=(NEW, FINALIZING)) is None
    assert the(store, iteration_id) == before


@pytest.mark.parametrize("where", [CANCELLED, DONE])
def test_what_is_over_says_when(store: IterationStore, where: IterationState) -> None:
    iteration_id, _ = running(store)
    assert store.control(iteration_id, where, when=(RUNNING,))
    found = the(store, iteration_id)
    assert found.state is where and found.state.is_over
    assert found.finished is not None


@pytest.mark.parametrize("first", [PAUSED, HELD, FAILED])
@pytest.mark.parametrize("second", [PAUSED, HELD])
def test_resuming_leads_back_over_two_stops(
    store: IterationStore, first: IterationState, second: IterationState
) -> None:
    iteration = an_iteration()
    store.create(iteration)
    assert store.control(iteration.id, first, when=(NEW,))
    assert store.control(iteration.id, second, when=(first,), reason="again")
    assert store.control(iteration.id, RUNNING, when=(second,), due=LATER)
    found = the(store, iteration.id)
    assert (found.state, found.resumes, found.reason) == (NEW, None, "")
    assert (found.generation, found.due, found.requeues) == (1, LATER, 0)


def test_resuming_a_running_one_keeps_it_running_with_a_new_generation(store: IterationStore) -> None:
    iteration_id, _ = running(store)
    assert store.control(iteration_id, PAUSED, when=(RUNNING,))
    assert store.control(iteration_id, RUNNING, when=(PAUSED,), due=LATER)
    found = the(store, iteration_id)
    assert (found.state, found.generation) == (RUNNING, 1)


def test_a_plan_of_no_rows_is_finalizing_at_once(store: IterationStore) -> None:
    iteration = an_iteration()
    store.create(iteration)
    with store.transaction():
        assert store.plan(iteration, [], total=0)
        assert store.control(iteration.id, RUNNING, when=(RUNNING,), due=LATER)
    assert the(store, iteration.id).state is FINALIZING


def test_reopen_moves_open_shards_to_the_next_generation(store: IterationStore) -> None:
    first, second, third = acquired(store, 3)
    assert store.complete(second, due=LATER) is Completion.OPEN
    assert store.checkpoint(replace(first, attempts=4, failing=(1,), requeues=2, rows=7, position=(2,)))
    renewed = store.renew(first.iteration_id, due=LATER + 9)
    assert renewed == [
        replace(first, attempts=0, failing=(1,), requeues=0, rows=7, position=(2,), generation=1, due=LATER + 9),
        replace(third, generation=1, due=LATER + 9),
    ]
    assert [each for each in store.shards(first.iteration_id) if not each.done] == renewed
    assert store.checkpoint(first) is None


def test_reopen_goes_by_pages(store: IterationStore) -> None:
    shards = acquired(store, 5)
    assert store.complete(shards[2], due=LATER) is Completion.OPEN
    page = store.renew(shards[0].iteration_id, due=LATER, after=0, limit=2)
    assert [each.index for each in page] == [1, 3]
    assert [each.index for each in store.renew(shards[0].iteration_id, due=LATER, after=3, limit=2)] == [4]
    assert [each.generation for each in store.shards(shards[0].iteration_id)] == [0, 1, 0, 1, 1]


# --- the sweep --------------------------------------------------------------------------------------------------------


def test_stalled_are_the_longest_first_and_no_more_than_asked(store: IterationStore) -> None:
    shards = acquired(store, 4)
    for shard, due in zip(shards, (NOW + 3, NOW + 1, NOW + 9, NOW + 2), strict=True):
        assert store.checkpoint(replace(shard, due=due, requeues=1))
    found = store.stalled(now=NOW + 3, limit=10)
    assert [(each.index, each.due, each.requeues) for each in found] == [
        (1, NOW + 1, 1),
        (3, NOW + 2, 1),
        (0, NOW + 3, 1),
    ]
    assert [each.index for each in store.stalled(now=NOW + 3, limit=2)] == [1, 3]
    assert {each.generation for each in found} == {0}


def test_plans_and_finalizes_stall_too(store: IterationStore) -> None:
    new = an_iteration(due=NOW + 5)
    store.create(new)
    (shard,) = acquired(store, 1)
    assert store.complete(shard, due=NOW + 2) is Completion.LAST
    found = store.stalled(now=NOW + 5, limit=10)
    assert [(each.iteration_id, each.index, each.generation) for each in found] == [
        (shard.iteration_id, None, 1),
        (new.id, None, 0),
    ]


@pytest.mark.parametrize("where", [PAUSED, HELD, CANCELLED, FAILED])
def test_nothing_stalls_that_stands_still_or_is_over(store: IterationStore, where: IterationState) -> None:
    iteration_id, _ = running(store)
    new = an_iteration()
    store.create(new)
    for each in (iteration_id, new.id):
        assert store.control(each, where, when=(RUNNING, NEW))
    assert store.stalled(now=LATER * 2, limit=10) == []


def test_a_done_shard_does_not_stall(store: IterationStore) -> None:
    shard, _ = acquired(store)
    assert store.complete(replace(shard, due=NOW), due=NOW) is Completion.OPEN
    assert [each.index for each in store.stalled(now=LATER + 1, limit=10)] == [1]


def test_stalled_looks_at_every_running_iteration(store: IterationStore) -> None:
    ids = {running(store, 1)[0] for _ in range(35)}
    assert {each.iteration_id for each in store.stalled(now=LATER, limit=100)} == ids


def test_wake_moves_a_shard_to_its_next_generation_once(store: IterationStore) -> None:
    shard, _ = acquired(store)
    stalled = next(each for each in store.stalled(now=LATER, limit=10) if each.index == 0)
    requeued = store.requeue(stalled, due=LATER + 50)
    assert requeued == replace(shard, generation=1, due=LATER + 50, requeues=1)
    assert store.shards(shard.iteration_id)[0] == requeued
    assert store.requeue(stalled, due=LATER + 50) is None
    assert store.checkpoint(shard) is None


@pytest.mark.parametrize("where", [NEW, FINALIZING])
def test_wake_moves_a_plan_or_finalize_to_its_next_generation_once(
    store: IterationStore, where: IterationState
) -> None:
    if where is NEW:
        store.create(an_iteration())
    else:
        (shard,) = acquired(store, 1)
        assert store.complete(shard, due=NOW) is Completion.LAST
    (stalled,) = store.stalled(now=LATER, limit=10)
    requeued = store.requeue(stalled, due=LATER + 50)
    assert requeued is not None and requeued == store.get(stalled.iteration_id)
    assert (requeued.generation, requeued.due, requeued.requeues) == (stalled.generation + 1, LATER + 50, 1)
    assert store.requeue(stalled, due=LATER + 50) is None


def test_what_was_acquired_meanwhile_is_not_woken(store: IterationStore) -> None:
    iteration_id, (shard, _) = running(store)
    stalled = next(each for each in store.stalled(now=LATER, limit=10) if each.index == 0)
    mine = acquire(store, shard)
    assert store.requeue(stalled, due=LATER + 50) is None
    assert store.shards(iteration_id)[0] == mine


# --- quarantine -------------------------------------------------------------------------------------------------------


def test_quarantined_rows_are_listed_by_shard_and_once_each(store: IterationStore) -> None:
    first, second = acquired(store)
    rows = [a_row(second, ("k", 1)), a_row(first, (5,)), a_row(first, (4,), error="é" * 500)]
    assert store.checkpoint(second, rows[:1]) is RUNNING
    assert store.checkpoint(first, rows[1:]) is RUNNING
    assert store.checkpoint(first, [replace(rows[1], attempts=6)]) is RUNNING
    found = store.quarantined(first.iteration_id)
    assert [each.index for each in found] == [0, 0, 1]
    assert {each.key: each for each in found} == {
        (4,): rows[2],
        (5,): replace(rows[1], attempts=6),
        ("k", 1): rows[0],
    }


def test_a_settled_row_is_gone_or_notes_its_new_error(store: IterationStore) -> None:
    shard, _ = acquired(store)
    good, bad = a_row(shard, (1,)), a_row(shard, (2,))
    assert store.checkpoint(shard, [good, bad]) is RUNNING
    store.record_retry(good, error=None)
    store.record_retry(bad, error="KeyError")
    assert store.quarantined(shard.iteration_id) == [replace(bad, error="KeyError", attempts=6)]
    store.record_retry(good, error="it is gone already")
    assert len(store.quarantined(shard.iteration_id)) == 1


def test_a_quarantined_row_is_held_as_it_is_until_it_is_settled(store: IterationStore) -> None:
    shard, _ = acquired(store)
    row = a_row(shard, (1,))
    assert store.checkpoint(shard, [row]) is RUNNING
    assert store.transact(lambda: store.lock_quarantined(row)) == row
    store.record_retry(row, error="KeyError")
    assert store.transact(lambda: store.lock_quarantined(row)) == replace(row, error="KeyError", attempts=6)
    store.record_retry(row, error=None)
    assert store.transact(lambda: store.lock_quarantined(row)) is None


def test_what_a_settled_row_has_counted_is_added_once(store: IterationStore) -> None:
    first, second = acquired(store)
    row = a_row(first, (1,))
    assert store.checkpoint(replace(first, counters={"seen": 2}), [row]) is RUNNING
    store.record_retry(row, error=None, counted={"seen": 1, "net": Decimal("-0.50")})
    store.record_retry(row, error=None, counted={"seen": 1})
    assert the(store, first.iteration_id).counters == {"seen": 1, "net": Decimal("-0.50")}
    assert store.complete(replace(first, counters={"seen": 2}), due=LATER) is Completion.OPEN
    assert store.complete(replace(second, counters={"seen": 4}), due=LATER) is Completion.LAST
    assert the(store, first.iteration_id).counters == {"seen": 7, "net": Decimal("-0.50")}


# --- history ----------------------------------------------------------------------------------------------------------


def over(store: IterationStore, name: str = "", state: IterationState = DONE, *, aside: bool = False) -> Iteration:
    """An iteration of two shards that is over, with a quarantined row or without."""
    shard, _ = acquired(store, name=name)
    if aside:
        assert store.checkpoint(shard, [a_row(shard, (1,))])
    assert store.control(shard.iteration_id, state, when=(RUNNING,))
    return the(store, shard.iteration_id)


def test_the_shards_of_one_that_is_over_can_be_deleted(store: IterationStore) -> None:
    ended, other = over(store, aside=True), over(store)
    store.delete_shards(replace(ended, created=NOW - 1))
    assert len(store.shards(ended.id)) == 2, "another one has its name"
    iteration_id, _ = running(store)
    store.delete_shards(the(store, iteration_id))
    assert len(store.shards(iteration_id)) == 2, "it is not over"
    store.delete_shards(ended)
    assert store.shards(ended.id) == [] and len(store.quarantined(ended.id)) == 1 and len(store.shards(other.id)) == 2
    assert store.get(ended.id) == ended


@pytest.mark.parametrize("where", [DONE, CANCELLED])
def test_one_that_is_over_is_forgotten_with_all_that_belongs_to_it(
    store: IterationStore, where: IterationState
) -> None:
    ended, other = over(store, "nightly", where, aside=True), over(store, "weekly")
    assert store.forget(ended.id) and not store.forget(ended.id)
    assert store.get(ended.id) is None and store.shards(ended.id) == [] and store.quarantined(ended.id) == []
    assert store.get(other.id) == other and len(store.shards(other.id)) == 2


@pytest.mark.parametrize("where", [NEW, RUNNING, PAUSED, HELD, FAILED, FINALIZING])
def test_one_that_is_not_over_is_not_forgotten(store: IterationStore, where: IterationState) -> None:
    (shard,) = acquired(store, 1, name="nightly")
    if where is FINALIZING:
        assert store.complete(shard, due=NOW) is Completion.LAST
    elif where not in (NEW, RUNNING):
        assert store.control(shard.iteration_id, where, when=(RUNNING,))
    new = an_iteration()
    store.create(new)
    found = the(store, new.id if where is NEW else shard.iteration_id)
    assert found.state is where
    assert not store.forget(found.id) and not store.forget(found.id, ended_before=LATER * 9)
    assert store.get(found.id) == found and len(store.shards(shard.iteration_id)) == 1


def test_those_that_ended_before_a_time_are_listed_and_forgotten(store: IterationStore) -> None:
    first, second, aside = over(store, "first"), over(store, "second", CANCELLED), over(store, "aside", aside=True)
    over(store)
    running(store, name="running")
    assert first.finished and second.finished and aside.finished
    later = aside.finished + 10
    assert store.ended(before=later, limit=10) == [first.id, second.id]
    assert store.ended(before=later, limit=1) == [first.id]
    assert store.ended(before=first.finished, limit=10) == []
    assert not store.forget(first.id, ended_before=first.finished)
    assert not store.forget(aside.id, ended_before=later), "it has a quarantined row"
    assert store.forget(second.id, ended_before=later) and store.ended(before=later, limit=10) == [first.id]
    assert len(store.quarantined(aside.id)) == 1 and len(store.shards(aside.id)) == 2


# --- errors outside rows ----------------------------------------------------------------------------------------------


def test_a_shard_notes_what_the_attempt_that_has_it_has_raised(store: IterationStore) -> None:
    shard, _ = acquired(store)
    assert store.record_error(shard, "KeyError: 'a'") and store.record_error(shard, "KeyError: 'b'")
    found = store.shard(shard.iteration_id, shard.index)
    assert found is not None and found.failed_at is not None
    assert found == replace(shard, error="KeyError: 'b'", errors=2, failed_at=found.failed_at)
    assert not store.record_error(replace(shard, fence=shard.fence - 1), "late")
    assert not store.record_error(replace(shard, generation=shard.generation + 1), "late")
    assert not store.record_error(replace(shard, index=7), "nowhere")
    assert store.shard(shard.iteration_id, shard.index) == found


def test_an_iteration_notes_what_its_plan_or_finalize_has_raised(store: IterationStore) -> None:
    iteration = an_iteration()
    store.create(iteration)
    attempt = store.acquire_whole(iteration.id, NEW, due=lambda requeues: LATER)
    assert attempt is not None and store.record_error(attempt, "KeyError")
    found = the(store, iteration.id)
    assert (found.error, found.errors, found.state) == ("KeyError", 1, NEW) and found.failed_at is not None
    assert not store.record_error(iteration, "of an older attempt")
    assert store.plan(attempt, some_shards(iteration.id, 1), total=10)
    assert not store.record_error(attempt, "of another state")
    found = the(store, iteration.id)
    assert (found.error, found.errors, found.failed_at) == ("", 0, None), "it has got on"


def test_a_shard_that_is_not_there_is_none(store: IterationStore) -> None:
    assert store.shard(new_id(), 0) is None


# --- counters ---------------------------------------------------------------------------------------------------------

COUNTERS = {
    "sum": 3,
    "zero": 0,
    "below": -(10**59),
    "third": 0.1,
    "money": Decimal("1.50"),
    "\x00\ud800é": 1,
}


def test_counters_come_back_as_they_were(store: IterationStore) -> None:
    shard, _ = acquired(store)
    assert store.checkpoint(replace(shard, counters=COUNTERS)) is RUNNING
    found = store.shard(shard.iteration_id, shard.index)
    assert found is not None and found.counters == COUNTERS
    assert {name: type(each) for name, each in found.counters.items()} == {k: type(v) for k, v in COUNTERS.items()}
