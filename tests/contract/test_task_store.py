"""What every TaskStore promises, run against every adapter.

An adapter is a function that takes pytest's request and returns a fresh, empty store.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import services

from defer_core.record import State, TaskRecord, new_id
from defer_core.stores.base import TaskStore
from defer_core.task import RetryOptions, Routing


def close_connections() -> None:
    """A thread that ends leaves its database connections to nobody."""
    if "django.db" in sys.modules:
        from django.db import connections

        connections.close_all()


NOW = 1_700_000_000.0


def memory(request: pytest.FixtureRequest) -> TaskStore:
    from defer_core.stores.memory import MemoryStore

    return MemoryStore()


def sqlite(request: pytest.FixtureRequest) -> TaskStore:
    from defer_core.stores.sqlite import SQLiteTaskStore

    store = SQLiteTaskStore(file=request.getfixturevalue("tmp_path") / "store.sqlite3")
    request.addfinalizer(store.close)
    return store


def django(request: pytest.FixtureRequest) -> TaskStore:
    services.library("django")
    from defer_django.store import DjangoTaskStore

    return DjangoTaskStore()


def ndb(request: pytest.FixtureRequest, emulator: str) -> TaskStore:
    services.library("google.cloud.ndb")
    from defer_core.stores.ndb import NdbTaskStore

    address, patch = request.getfixturevalue(emulator), request.getfixturevalue("monkeypatch")
    patch.setenv("DATASTORE_EMULATOR_HOST", address)
    return NdbTaskStore(project=services.PROJECT, namespace=f"contract-{new_id()}")


def appengine(request: pytest.FixtureRequest) -> TaskStore:
    testbed = services.library("google.appengine.ext.testbed")
    from defer_core.stores.appengine import AppEngineTaskStore

    bed = testbed.Testbed()
    bed.activate()
    request.addfinalizer(bed.deactivate)
    bed.init_datastore_v3_stub()
    bed.init_memcache_stub()
    return AppEngineTaskStore()


ADAPTERS: dict[str, Callable[[pytest.FixtureRequest], TaskStore]] = {
    "appengine": appengine,
    "memory": memory,
    "sqlite": sqlite,
    "django": django,
    "ndb on datastore": lambda request: ndb(request, "datastore"),
    "ndb on firestore": lambda request: ndb(request, "firestore"),
}


MARKS = {"django": pytest.mark.django_db(transaction=True)}
"""What must be known of a test before its fixtures are made."""


@pytest.fixture(params=[pytest.param(name, marks=MARKS.get(name, ())) for name in sorted(ADAPTERS)])
def store(request: pytest.FixtureRequest) -> TaskStore:
    return ADAPTERS[request.param](request)


def a_record(**fields: Any) -> TaskRecord:
    given = {"id": new_id(), "envelope": b"\xdf\x00wire", "created": NOW, "due": NOW, "label": "shop.tasks:ship"}
    return TaskRecord(**(given | fields))


def test_a_record_comes_back_as_it_was_put(store: TaskStore) -> None:
    record = a_record(
        payload=b"\x00\xff" * 10,
        routing=Routing(
            queue="mail",
            name="n-1",
            eta=NOW + 0.25,
            url="/x",
            headers={"X-A": "é"},
            service="s",
            version="v",
            instance="i",
            retry=RetryOptions(max_attempts=3, min_backoff=0.5),
            dispatch_deadline=30.0,
        ),
        state=State.DEAD,
        idempotent=True,
        verified=False,
        attempts=4,
        doubtful_since=NOW + 1,
        last_error="Traceback …",
        reason="permanent",
        first_attempt=NOW - 1,
        last_attempt=NOW + 2,
    )
    store.put([record])
    assert store.get(record.id) == record


def test_a_missing_record_is_none(store: TaskStore) -> None:
    assert store.get(new_id()) is None


@pytest.mark.parametrize("size", [0, 1, 100_000, 1_048_572, 1_048_573, 3_000_000])
def test_payloads_of_any_size_come_back(store: TaskStore, size: int) -> None:
    record = a_record(payload=b"\xc1" * size)
    store.put([record])
    found = store.get(record.id)
    assert found is not None and found.payload == record.payload


def test_the_largest_payload_is_taken_and_deleted_whole(store: TaskStore) -> None:
    record = a_record(payload=b"z" * store.max_payload)
    store.put([record])
    assert store.get(record.id) == record
    assert store.delete([record.id]) == 1
    assert store.get(record.id) is None


def test_many_are_put_at_once(store: TaskStore) -> None:
    records = [a_record() for _ in range(250)]
    store.put(records)
    assert store.count(State.PENDING) == 250
    assert store.get(records[-1].id) == records[-1]


@pytest.mark.parametrize("state", [State.PENDING, State.DEAD])
def test_many_large_ones_are_put_and_found(store: TaskStore, state: State) -> None:
    """More in all than one request of a database, or one answer, takes."""
    records = [a_record(payload=bytes([number]) * 899_000, state=state) for number in range(12)]
    store.put(records)
    assert {each.id for each in store.list(state)} == {each.id for each in records}
    if state is State.PENDING:
        leased = store.lease_due(now=NOW, limit=12, seconds=60)
        assert {(each.id, each.payload) for each in leased} == {(each.id, each.payload) for each in records}
    assert store.delete([each.id for each in records]) == 12


def test_put_forgets_pending_records_only(store: TaskStore) -> None:
    sent, dead = a_record(), a_record(state=State.DEAD)
    store.put([sent, dead])
    new = a_record()
    store.put([new], [sent.id, dead.id, new_id()])
    assert store.get(sent.id) is None
    assert store.get(dead.id) == dead
    assert store.get(new.id) == new


def test_put_forgets_without_writing_anything(store: TaskStore) -> None:
    sent = [a_record() for _ in range(3)]
    store.put(sent)
    store.put([], forget=[each.id for each in sent[:2]])
    assert [store.get(each.id) for each in sent] == [None, None, sent[2]]


def test_delete_says_how_many_were_there(store: TaskStore) -> None:
    records = [a_record(), a_record()]
    store.put(records)
    assert store.delete([records[0].id, new_id()]) == 1
    assert store.delete([records[0].id]) == 0
    assert store.get(records[1].id) is not None


def test_a_leased_record_is_deleted_by_its_holder_only(store: TaskStore) -> None:
    record = a_record()
    store.put([record])
    [leased] = store.lease_due(now=NOW, limit=5, seconds=60)
    assert store.delete([record.id], lease="somebody else's") == 0
    assert store.delete([record.id], lease=leased.lease) == 1


def test_lease_takes_what_is_due_oldest_first(store: TaskStore) -> None:
    records = [a_record(due=NOW - age) for age in (1, 3, 2)]
    store.put([*records, a_record(due=NOW + 1), a_record(state=State.SENT), a_record(state=State.DEAD)])
    leased = store.lease_due(now=NOW, limit=2, seconds=60)
    assert [each.id for each in leased] == [records[1].id, records[2].id]
    assert all(each.lease and each.due == NOW + 60 for each in leased)
    assert len({each.lease for each in leased}) == 2
    assert leased[0].envelope == records[1].envelope


def test_a_leased_record_is_not_leased_again_until_the_lease_is_over(store: TaskStore) -> None:
    store.put([a_record()])
    [first] = store.lease_due(now=NOW, limit=5, seconds=60)
    assert store.lease_due(now=NOW + 59, limit=5, seconds=60) == []
    [second] = store.lease_due(now=NOW + 60, limit=5, seconds=60)
    assert second.id == first.id and second.lease != first.lease


def test_mark_changes_what_its_lease_holds(store: TaskStore) -> None:
    record = a_record(payload=b"p")
    store.put([record])
    [leased] = store.lease_due(now=NOW, limit=1, seconds=60)
    assert store.mark(record.id, lease=leased.lease, state=State.DEAD, reason="held", attempts=2, doubtful_since=NOW)
    expected = replace(record, state=State.DEAD, reason="held", attempts=2, doubtful_since=NOW, due=NOW + 60)
    assert store.get(record.id) == expected


def test_mark_under_a_stale_lease_changes_nothing(store: TaskStore) -> None:
    record = a_record()
    store.put([record])
    [stale] = store.lease_due(now=NOW, limit=1, seconds=60)
    [fresh] = store.lease_due(now=NOW + 60, limit=1, seconds=60)
    assert not store.mark(record.id, lease=stale.lease, state=State.DEAD)
    assert not store.mark(record.id, lease="", state=State.DEAD)
    found = store.get(record.id)
    assert found is not None and found.state is State.PENDING and found.lease == fresh.lease


def test_a_fresh_record_is_marked_by_its_sender_without_a_lease(store: TaskStore) -> None:
    record = a_record()
    store.put([record])
    assert store.mark(record.id, lease="", attempts=1)
    assert store.get(record.id) == replace(record, attempts=1)


def test_mark_never_creates_a_record(store: TaskStore) -> None:
    gone = new_id()
    assert not store.mark(gone, lease="", state=State.DEAD)
    assert store.get(gone) is None and store.count(State.DEAD) == 0


def test_mark_can_pass_the_lease_on_and_add_a_payload(store: TaskStore) -> None:
    record = a_record()
    store.put([record])
    [leased] = store.lease_due(now=NOW, limit=1, seconds=60)
    payload = b"p" * 1_500_000
    assert store.mark(record.id, lease=leased.lease, new_lease=leased.lease, envelope=b"claim", payload=payload)
    found = store.get(record.id)
    assert found is not None and (found.lease, found.envelope, found.payload) == (leased.lease, b"claim", payload)


def test_mark_changes_the_routing(store: TaskStore) -> None:
    record = a_record(state=State.DEAD)
    store.put([record])
    routing = Routing(queue="q", name="again", headers={"A": "b"})
    assert store.mark(record.id, lease="", state=State.PENDING, routing=routing)
    assert store.get(record.id) == replace(record, state=State.PENDING, routing=routing)


def test_list_pages_by_id(store: TaskStore) -> None:
    dead = sorted((a_record(state=State.DEAD) for _ in range(5)), key=lambda each: each.id)
    store.put([*dead, a_record()])
    first = store.list(State.DEAD, limit=3)
    assert [each.id for each in first] == [each.id for each in dead[:3]]
    rest = store.list(State.DEAD, limit=3, after=first[-1].id)
    assert [each.id for each in rest] == [each.id for each in dead[3:]]
    assert (store.list("dead", limit=3), store.count("dead")) == (first, 5)  # a state's name will do
    assert rest[0].label == dead[3].label


def test_count_and_oldest_pending(store: TaskStore) -> None:
    assert (store.count(State.PENDING), store.oldest_pending()) == (0, None)
    store.put([a_record(created=NOW + 5), a_record(created=NOW + 2), a_record(created=NOW, state=State.DEAD)])
    assert (store.count(State.PENDING), store.oldest_pending()) == (2, NOW + 2)


def test_a_transaction_that_rolls_back_leaves_nothing(store: TaskStore) -> None:
    called: list[str] = []
    record = a_record()
    assert not store.in_transaction()
    with pytest.raises(RuntimeError), store.transaction():
        assert store.in_transaction()
        store.put([record])
        store.on_commit(lambda: called.append("no"))
        raise RuntimeError
    assert not store.in_transaction()
    assert (store.get(record.id), called) == (None, [])


def test_hooks_follow_the_commit_in_order(store: TaskStore) -> None:
    called: list[object] = []
    record = a_record()
    with store.transaction():
        store.put([record])
        store.on_commit(lambda: called.append(1))
        store.on_commit(lambda: called.append(2))
        assert called == []
    assert called == [1, 2]
    assert store.get(record.id) == record


def test_a_hook_outside_a_transaction_runs_at_once(store: TaskStore) -> None:
    called: list[int] = []
    store.on_commit(lambda: called.append(1))
    assert called == [1]


def test_a_carried_delete_is_undone_with_its_transaction(store: TaskStore) -> None:
    sent = a_record()
    store.put([sent])
    with pytest.raises(RuntimeError), store.transaction():
        store.put([a_record()], [sent.id])
        raise RuntimeError
    assert store.get(sent.id) == sent


def test_concurrent_callers_never_lease_one_record(store: TaskStore) -> None:
    records = [a_record(due=NOW - index) for index in range(24)]
    store.put(records)
    taken: list[str] = []
    errors: list[BaseException] = []

    def worker() -> None:
        try:
            while leased := store.lease_due(now=NOW, limit=3, seconds=60):
                taken.extend(each.id for each in leased)
        except BaseException as error:
            errors.append(error)
        finally:
            close_connections()

    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert sorted(taken) == sorted(each.id for each in records)
