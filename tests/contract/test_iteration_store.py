"""What every IterationStore promises, run against every adapter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import aliases
import pytest
from django.db import connections

from defer_core.record import new_id
from defer_iteration import stores
from defer_iteration.base import Completion, IterationStore
from defer_iteration.iteration import Iteration, IterationOptions, IterationState, QuarantinedRow
from defer_iteration.shard import KeyRange, Shard, Stalled

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
    return stores.store_on(name)


def memory(request: pytest.FixtureRequest) -> IterationStore:
    from defer_core.stores.memory import MemoryStore
    from defer_iteration.store_memory import MemoryIterationStore

    return MemoryIterationStore(MemoryStore())


ADAPTERS = {
    "memory": memory,
    "django": lambda request: stores.store_on("default"),
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
    """A running iteration, and its shards, none of which is claimed."""
    iteration = an_iteration(**fields)
    store.create(iteration)
    shards = some_shards(iteration.id, number)
    assert store.plan(iteration, shards, total=number * 10)
    return iteration.id, shards


def claimed(store: IterationStore, number: int = 2, **fields: Any) -> list[Shard]:
    """The shards of a running iteration, each claimed once."""
    _, shards = running(store, number, **fields)
    return [claim(store, each) for each in shards]


def claim(store: IterationStore, shard: Shard, generation: int = 0) -> Shard:
    found = store.claim(shard.iteration_id, shard.index, generation, due=lambda wakes: LATER + wakes)
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
        delete_marker=False, buffer_time=2.5, atomic=True, on_error="quarantine", max_attempts=3,
    )  # fmt: skip
    iteration = an_iteration(options=options, job=bytes(range(256)))
    store.create(iteration)
    assert store.get(iteration.id) == iteration


def test_what_is_not_there_is_none_or_empty(store: IterationStore) -> None:
    gone = new_id()
    assert store.get(gone) is None
    assert store.shards(gone) == [] and store.quarantined(gone) == []
    assert store.claim(gone, 0, 0, due=lambda wakes: LATER) is None
    assert store.claim_whole(gone, NEW, due=lambda wakes: LATER) is None
    assert not store.plan(an_iteration(id=gone), some_shards(gone, 1), total=1) and store.shards(gone) == []
    assert store.control(gone, PAUSED, when=(RUNNING,)) is None
    assert store.reopen(gone, due=NOW) == []
    assert store.checkpoint(some_shards(gone, 1)[0]) is None
    assert store.hand_over(some_shards(gone, 1)[0]) is None
    assert store.complete(some_shards(gone, 1)[0], due=NOW) is Completion.LOST
    assert not store.wake(Stalled(iteration_id=gone), due=NOW)
    assert not store.wake(Stalled(iteration_id=gone, index=0), due=NOW)
    store.delete(gone)
    assert store.list() == []


def test_list_pages_by_id(store: IterationStore) -> None:
    made = sorted((an_iteration() for _ in range(5)), key=lambda each: each.id)
    for each in made:
        store.create(each)
    assert [each.id for each in store.list(limit=3)] == [each.id for each in made[:3]]
    assert [each.id for each in store.list(limit=3, after=made[2].id)] == [each.id for each in made[3:]]


def test_delete_takes_all_of_one_iteration_and_nothing_of_another(store: IterationStore) -> None:
    first, second = claimed(store), claimed(store)
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


def test_an_older_claim_plans_nothing(store: IterationStore) -> None:
    iteration = an_iteration()
    store.create(iteration)
    old = store.claim_whole(iteration.id, NEW, due=lambda wakes: LATER)
    new = store.claim_whole(iteration.id, NEW, due=lambda wakes: LATER)
    assert old is not None and new is not None
    assert not store.plan(old, some_shards(iteration.id, 2), total=2)
    assert store.shards(iteration.id) == [] and the(store, iteration.id).state is NEW
    assert store.plan(new, some_shards(iteration.id, 3), total=3)
    assert len(store.shards(iteration.id)) == 3


# --- claims, fences and generations -----------------------------------------------------------------------------------


def test_a_claim_takes_the_next_fence_and_notes_when_it_is_stalled(store: IterationStore) -> None:
    iteration_id, (shard, _) = running(store)
    found = store.claim(iteration_id, 0, 0, due=lambda wakes: LATER + wakes)
    assert found is not None
    assert found == (the(store, iteration_id), replace(shard, fence=1, due=LATER))
    assert store.shards(iteration_id)[0] == found[1]
    assert claim(store, shard).fence == 2


@pytest.mark.parametrize("generation", [-1, 1])
def test_a_wrong_generation_claims_nothing(store: IterationStore, generation: int) -> None:
    iteration_id, (shard, _) = running(store)
    assert store.claim(iteration_id, 0, generation, due=lambda wakes: LATER) is None
    assert store.claim(iteration_id, 7, 0, due=lambda wakes: LATER) is None
    assert store.shards(iteration_id)[0] == shard


@pytest.mark.parametrize("where", [PAUSED, HELD, FAILED, CANCELLED])
def test_nothing_is_claimed_of_an_iteration_that_does_not_run(store: IterationStore, where: IterationState) -> None:
    iteration_id, (shard, _) = running(store)
    assert store.control(iteration_id, where, when=(RUNNING,))
    assert store.claim(iteration_id, 0, 0, due=lambda wakes: LATER) is None
    assert store.shards(iteration_id)[0] == shard


def test_a_shard_that_is_done_is_not_claimed(store: IterationStore) -> None:
    shard, _ = claimed(store)
    assert store.complete(shard, due=NOW) is Completion.OPEN
    assert store.claim(shard.iteration_id, 0, 0, due=lambda wakes: LATER) is None


def test_an_older_fence_writes_nothing(store: IterationStore) -> None:
    old, _ = claimed(store)
    new = claim(store, old)
    assert store.checkpoint(replace(old, rows=9), [a_row(old, (1,))]) is None
    assert store.hand_over(replace(old, rows=9)) is None
    assert store.complete(replace(old, rows=9), due=NOW) is Completion.LOST
    assert store.shards(old.iteration_id)[0] == new
    assert store.quarantined(old.iteration_id) == []
    assert store.checkpoint(new) is RUNNING


def test_an_older_generation_writes_nothing(store: IterationStore) -> None:
    old, _ = claimed(store)
    assert store.hand_over(old) is RUNNING
    new = store.shards(old.iteration_id)[0]
    assert new.generation == 1
    assert store.checkpoint(replace(old, rows=9)) is None
    assert store.hand_over(replace(old, rows=9)) is None
    assert store.complete(replace(old, rows=9), due=NOW) is Completion.LOST
    assert store.shards(old.iteration_id)[0] == new


def test_claim_whole_notes_the_attempt_in_its_state_only(store: IterationStore) -> None:
    iteration = an_iteration()
    store.create(iteration)
    found = store.claim_whole(iteration.id, NEW, due=lambda wakes: LATER + wakes)
    assert found is not None and found.due == LATER and found == the(store, iteration.id)
    assert store.claim_whole(iteration.id, FINALIZING, due=lambda wakes: 0.0) is None
    assert the(store, iteration.id) == found


# --- checkpoint and hand-over -----------------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_as_it_was_written(store: IterationStore) -> None:
    shard, other = claimed(store)
    done = replace(
        shard, position=("x", 7), rows=12, counters={"passed": 12, "é": 1}, failing=("y", 8), attempts=2,
        error="Traceback …\n" * 50, due=LATER + 5, wakes=3,
    )  # fmt: skip
    assert store.checkpoint(done) is RUNNING
    assert store.shards(shard.iteration_id) == [done, other]
    again = replace(done, failing=None, position=("z", 9), wakes=0)
    assert store.checkpoint(again) is RUNNING
    assert store.shards(shard.iteration_id)[0] == again


@pytest.mark.parametrize("where", [PAUSED, HELD, FAILED, CANCELLED])
def test_a_stop_is_told_to_a_checkpoint_which_is_written(store: IterationStore, where: IterationState) -> None:
    shard, _ = claimed(store)
    assert store.control(shard.iteration_id, where, when=(RUNNING,))
    assert store.checkpoint(replace(shard, rows=3)) is where
    assert store.shards(shard.iteration_id)[0] == replace(shard, rows=3)


def test_a_hand_over_is_a_checkpoint_of_the_next_generation(store: IterationStore) -> None:
    shard, _ = claimed(store)
    assert store.hand_over(replace(shard, position=(4,), rows=4, counters={"a": 1}), [a_row(shard, (3,))]) is RUNNING
    expected = replace(shard, position=(4,), rows=4, counters={"a": 1}, generation=1)
    assert store.shards(shard.iteration_id)[0] == expected
    assert len(store.quarantined(shard.iteration_id)) == 1
    assert claim(store, shard, generation=1) == replace(expected, fence=2, due=LATER)


def test_a_hand_over_while_it_stands_still_keeps_the_generation(store: IterationStore) -> None:
    shard, _ = claimed(store)
    assert store.control(shard.iteration_id, PAUSED, when=(RUNNING,))
    assert store.hand_over(replace(shard, rows=4)) is PAUSED
    assert store.shards(shard.iteration_id)[0] == replace(shard, rows=4)


# --- complete ---------------------------------------------------------------------------------------------------------


def test_the_last_completion_merges_the_counters_and_finalizes(store: IterationStore) -> None:
    first, second, third = claimed(store, 3)
    assert store.complete(replace(second, rows=5, counters={"a": 5}), due=LATER) is Completion.OPEN
    assert store.complete(replace(first, rows=3, counters={"a": 3, "b": 1}), due=LATER) is Completion.OPEN
    assert state(store, first) is RUNNING
    assert store.complete(replace(third, counters={"b": 2}, position=(9,)), due=LATER + 1) is Completion.LAST
    found = the(store, first.iteration_id)
    assert (found.state, found.generation, found.due, found.wakes) == (FINALIZING, 1, LATER + 1, 0)
    assert dict(found.counters) == {"a": 8, "b": 3}
    assert [(each.done, each.rows) for each in store.shards(first.iteration_id)] == [(True, 3), (True, 5), (True, 0)]


def test_a_completion_may_quarantine(store: IterationStore) -> None:
    (shard,) = claimed(store, 1)
    assert store.complete(shard, [a_row(shard, (2,))], due=LATER) is Completion.LAST
    assert [each.key for each in store.quarantined(shard.iteration_id)] == [(2,)]


def test_a_shard_completes_once(store: IterationStore) -> None:
    first, second = claimed(store)
    assert store.complete(first, due=LATER) is Completion.OPEN
    assert store.complete(first, due=LATER) is Completion.LOST
    assert store.complete(second, due=LATER) is Completion.LAST
    assert store.complete(second, due=LATER) is Completion.LOST
    assert the(store, first.iteration_id).generation == 1


@pytest.mark.parametrize("where", [PAUSED, HELD])
def test_the_last_completion_of_a_stopped_iteration_is_found_on_resuming(
    store: IterationStore, where: IterationState
) -> None:
    (shard,) = claimed(store, 1)
    assert store.control(shard.iteration_id, where, when=(RUNNING,))
    assert store.complete(replace(shard, counters={"a": 2}), due=LATER) is Completion.OPEN
    assert state(store, shard) is where
    assert store.control(shard.iteration_id, RUNNING, when=(where,), due=LATER)
    found = the(store, shard.iteration_id)
    assert (found.state, dict(found.counters), found.due) == (FINALIZING, {"a": 2}, LATER)


def test_the_completion_of_what_is_gone_is_lost(store: IterationStore) -> None:
    (shard,) = claimed(store, 1)
    store.delete(shard.iteration_id)
    assert store.complete(shard, due=LATER) is Completion.LOST
    assert store.get(shard.iteration_id) is None and store.shards(shard.iteration_id) == []


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


@pytest.mark.parametrize("where", [FAILED, CANCELLED, DONE])
def test_what_is_over_says_when(store: IterationStore, where: IterationState) -> None:
    iteration_id, _ = running(store)
    assert store.control(iteration_id, where, when=(RUNNING,))
    found = the(store, iteration_id)
    assert found.state is where and found.state.is_over
    assert found.finished is not None and found.resumes is None


@pytest.mark.parametrize("first", [PAUSED, HELD])
@pytest.mark.parametrize("second", [PAUSED, HELD])
def test_resuming_leads_back_over_two_stops(
    store: IterationStore, first: IterationState, second: IterationState
) -> None:
    iteration = an_iteration()
    store.create(iteration)
    assert store.control(iteration.id, first, when=(NEW,))
    assert store.control(iteration.id, second, when=(first,), reason="again")
    assert store.control(iteration.id, RUNNING, when=(PAUSED, HELD), due=LATER)
    found = the(store, iteration.id)
    assert (found.state, found.resumes, found.reason) == (NEW, None, "")
    assert (found.generation, found.due, found.wakes) == (1, LATER, 0)


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
    first, second, third = claimed(store, 3)
    assert store.complete(second, due=LATER) is Completion.OPEN
    assert store.checkpoint(replace(first, attempts=4, failing=(1,), wakes=2, rows=7, position=(2,)))
    reopened = store.reopen(first.iteration_id, due=LATER + 9)
    assert reopened == [
        replace(first, attempts=0, failing=(1,), wakes=0, rows=7, position=(2,), generation=1, due=LATER + 9),
        replace(third, generation=1, due=LATER + 9),
    ]
    assert [each for each in store.shards(first.iteration_id) if not each.done] == reopened
    assert store.checkpoint(first) is None


def test_reopen_goes_by_pages(store: IterationStore) -> None:
    shards = claimed(store, 5)
    assert store.complete(shards[2], due=LATER) is Completion.OPEN
    page = store.reopen(shards[0].iteration_id, due=LATER, after=0, limit=2)
    assert [each.index for each in page] == [1, 3]
    assert [each.index for each in store.reopen(shards[0].iteration_id, due=LATER, after=3, limit=2)] == [4]
    assert [each.generation for each in store.shards(shards[0].iteration_id)] == [0, 1, 0, 1, 1]


# --- the sweep --------------------------------------------------------------------------------------------------------


def test_stalled_are_the_longest_first_and_no_more_than_asked(store: IterationStore) -> None:
    shards = claimed(store, 4)
    for shard, due in zip(shards, (NOW + 3, NOW + 1, NOW + 9, NOW + 2), strict=True):
        assert store.checkpoint(replace(shard, due=due, wakes=1))
    found = store.stalled(now=NOW + 3, limit=10)
    assert [(each.index, each.due, each.wakes) for each in found] == [(1, NOW + 1, 1), (3, NOW + 2, 1), (0, NOW + 3, 1)]
    assert [each.index for each in store.stalled(now=NOW + 3, limit=2)] == [1, 3]
    assert {each.generation for each in found} == {0}


def test_plans_and_finalizes_stall_too(store: IterationStore) -> None:
    new = an_iteration(due=NOW + 5)
    store.create(new)
    (shard,) = claimed(store, 1)
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
    shard, _ = claimed(store)
    assert store.complete(replace(shard, due=NOW), due=NOW) is Completion.OPEN
    assert [each.index for each in store.stalled(now=LATER + 1, limit=10)] == [1]


def test_stalled_looks_at_every_running_iteration(store: IterationStore) -> None:
    ids = {running(store, 1)[0] for _ in range(35)}
    assert {each.iteration_id for each in store.stalled(now=LATER, limit=100)} == ids


def test_wake_moves_a_shard_to_its_next_generation_once(store: IterationStore) -> None:
    shard, _ = claimed(store)
    stalled = next(each for each in store.stalled(now=LATER, limit=10) if each.index == 0)
    woken = store.wake(stalled, due=LATER + 50)
    assert woken == replace(shard, generation=1, due=LATER + 50, wakes=1)
    assert store.shards(shard.iteration_id)[0] == woken
    assert store.wake(stalled, due=LATER + 50) is None
    assert store.checkpoint(shard) is None


@pytest.mark.parametrize("where", [NEW, FINALIZING])
def test_wake_moves_a_plan_or_finalize_to_its_next_generation_once(
    store: IterationStore, where: IterationState
) -> None:
    if where is NEW:
        store.create(an_iteration())
    else:
        (shard,) = claimed(store, 1)
        assert store.complete(shard, due=NOW) is Completion.LAST
    (stalled,) = store.stalled(now=LATER, limit=10)
    woken = store.wake(stalled, due=LATER + 50)
    assert woken is not None and woken == store.get(stalled.iteration_id)
    assert (woken.generation, woken.due, woken.wakes) == (stalled.generation + 1, LATER + 50, 1)
    assert store.wake(stalled, due=LATER + 50) is None


def test_what_was_claimed_meanwhile_is_not_woken(store: IterationStore) -> None:
    iteration_id, (shard, _) = running(store)
    stalled = next(each for each in store.stalled(now=LATER, limit=10) if each.index == 0)
    mine = claim(store, shard)
    assert store.wake(stalled, due=LATER + 50) is None
    assert store.shards(iteration_id)[0] == mine


# --- quarantine -------------------------------------------------------------------------------------------------------


def test_quarantined_rows_are_listed_by_shard_and_once_each(store: IterationStore) -> None:
    first, second = claimed(store)
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
    shard, _ = claimed(store)
    good, bad = a_row(shard, (1,)), a_row(shard, (2,))
    assert store.checkpoint(shard, [good, bad]) is RUNNING
    store.settle_quarantined(good, error=None)
    store.settle_quarantined(bad, error="KeyError")
    assert store.quarantined(shard.iteration_id) == [replace(bad, error="KeyError", attempts=6)]
    store.settle_quarantined(good, error="it is gone already")
    assert len(store.quarantined(shard.iteration_id)) == 1
