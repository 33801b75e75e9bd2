"""What every store and every transport promises, as suites of pytest that an adapter's author runs on it.

    from defer_core.testing.contracts import TaskStoreContract

    class TestMyStore(TaskStoreContract):
        @pytest.fixture
        def store(self, tmp_path):
            return MyStore(tmp_path / "tasks")

docs/adapters.md has a store and a transport that pass. This module alone needs pytest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ..errors import TaskAlreadyExistsError
from ..record import State, TaskRecord, new_id
from ..stores.base import TaskStore
from ..task import RetryOptions, Routing
from ..transports.base import Message, Transport

NOW = 1_700_000_000.0
Queued = Callable[[], list[tuple[str, str, bytes]]]
"""Returns the queue, the name and the body of each task that waits."""


def a_record(**fields: Any) -> TaskRecord:
    """Return a record that is due at `NOW`, with other fields as given."""
    given: dict[str, Any] = {
        "id": new_id(),
        "envelope": b"\xdf\x00wire",
        "created": NOW,
        "due": NOW,
        "label": "shop.tasks:ship",
    }
    return TaskRecord(**(given | fields))


def message(body: bytes = b"body", **routing: Any) -> Message:
    """Return a message to the queue `default`, with other parts of the routing as given."""
    return Message(body=body, routing=Routing(**({"url": "/_ah/queue/deferred"} | routing)))


class TaskStoreContract:
    """The promises of a TaskStore. Derive a test class, and give it the fixture `store`: a new, empty store."""

    @pytest.fixture
    def store(self) -> TaskStore:
        """Make a new, empty store, in which this thread is in no transaction."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture `store`.")

    def end_thread(self, store: TaskStore) -> None:
        """Close what a thread that ends has of the store, such as its connection."""

    def test_a_record_comes_back_as_it_was_put(self, store: TaskStore) -> None:
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

    def test_a_missing_record_is_none(self, store: TaskStore) -> None:
        assert store.get(new_id()) is None

    @pytest.mark.parametrize("size", [0, 1, 100_000, 1_048_572, 1_048_573, 3_000_000])
    def test_payloads_of_any_size_come_back(self, store: TaskStore, size: int) -> None:
        record = a_record(payload=b"\xc1" * size)
        store.put([record])
        found = store.get(record.id)
        assert found is not None and found.payload == record.payload

    def test_the_largest_payload_is_taken_and_deleted_whole(self, store: TaskStore) -> None:
        record = a_record(payload=b"z" * store.max_payload)
        store.put([record])
        assert store.get(record.id) == record
        assert store.delete([record.id]) == 1
        assert store.get(record.id) is None

    def test_many_are_put_at_once(self, store: TaskStore) -> None:
        records = [a_record() for _ in range(250)]
        store.put(records)
        assert store.count(State.PENDING) == 250
        assert store.get(records[-1].id) == records[-1]

    @pytest.mark.parametrize("state", [State.PENDING, State.DEAD])
    def test_many_large_ones_are_put_and_found(self, store: TaskStore, state: State) -> None:
        """More in all than one request of a database, or one answer, takes."""
        records = [a_record(payload=bytes([number]) * 899_000, state=state) for number in range(12)]
        store.put(records)
        assert {each.id for each in store.list(state)} == {each.id for each in records}
        if state is State.PENDING:
            leased = store.lease_due(now=NOW, limit=12, seconds=60)
            assert {(each.id, each.payload) for each in leased} == {(each.id, each.payload) for each in records}
        assert store.delete([each.id for each in records]) == 12

    def test_put_forgets_pending_records_only(self, store: TaskStore) -> None:
        sent, dead = a_record(), a_record(state=State.DEAD)
        store.put([sent, dead])
        new = a_record()
        store.put([new], [sent.id, dead.id, new_id()])
        assert store.get(sent.id) is None
        assert store.get(dead.id) == dead
        assert store.get(new.id) == new

    def test_put_forgets_without_writing_anything(self, store: TaskStore) -> None:
        sent = [a_record() for _ in range(3)]
        store.put(sent)
        store.put([], forget=[each.id for each in sent[:2]])
        assert [store.get(each.id) for each in sent] == [None, None, sent[2]]

    def test_delete_says_how_many_were_there(self, store: TaskStore) -> None:
        records = [a_record(), a_record()]
        store.put(records)
        assert store.delete([records[0].id, new_id()]) == 1
        assert store.delete([records[0].id]) == 0
        assert store.get(records[1].id) is not None

    def test_a_leased_record_is_deleted_by_its_holder_only(self, store: TaskStore) -> None:
        record = a_record()
        store.put([record])
        [leased] = store.lease_due(now=NOW, limit=5, seconds=60)
        assert store.delete([record.id], lease="somebody else's") == 0
        assert store.delete([record.id], lease=leased.lease) == 1

    def test_lease_takes_what_is_due_oldest_first(self, store: TaskStore) -> None:
        records = [a_record(due=NOW - age) for age in (1, 3, 2)]
        store.put([*records, a_record(due=NOW + 1), a_record(state=State.SENT), a_record(state=State.DEAD)])
        leased = store.lease_due(now=NOW, limit=2, seconds=60)
        assert [each.id for each in leased] == [records[1].id, records[2].id]
        assert all(each.lease and each.due == NOW + 60 for each in leased)
        assert len({each.lease for each in leased}) == 2
        assert leased[0].envelope == records[1].envelope

    @pytest.mark.parametrize("state", [State.SENT, State.FAILING])
    def test_other_states_can_be_leased_and_are_not_taken_for_pending(self, store: TaskStore, state: State) -> None:
        record = a_record(state=state, payload=b"p")
        store.put([record, a_record(state=state, due=NOW + 1), a_record(state=State.DEAD)])
        assert store.lease_due(now=NOW, limit=5, seconds=60) == []
        [leased] = store.lease_due(now=NOW, limit=5, seconds=60, state=state)
        assert (leased.id, leased.payload, leased.due) == (record.id, b"p", NOW + 60)
        assert store.lease_due(now=NOW, limit=5, seconds=60, state=state) == []
        assert store.mark(record.id, lease=leased.lease, state=State.DEAD, reason="silent")
        assert store.list(State.DEAD, limit=5)[0].state is State.DEAD and store.count(state) == 1

    def test_a_pending_record_fails_again_and_again_and_is_done(self, store: TaskStore) -> None:
        record = a_record(payload=b"p" * 10)
        store.put([record])
        for attempts in (1, 2):
            changes: dict[str, Any] = {
                "state": State.FAILING,
                "attempts": attempts,
                "last_error": "a\x00b",
                "due": NOW + attempts,
            }
            assert store.mark(record.id, lease="", **changes)
            found = store.get(record.id)
            assert found is not None and (found.state, found.attempts, found.payload) == (
                State.FAILING,
                attempts,
                record.payload,
            )
            assert (store.count(State.FAILING), store.count(State.PENDING)) == (1, 0)
            assert [each.id for each in store.list(State.FAILING)] == [record.id]
        store.put([], forget=[record.id])
        assert store.get(record.id) is not None
        assert store.delete([record.id]) == 1

    def test_of_a_long_error_the_beginning_and_the_end_are_kept(self, store: TaskStore) -> None:
        error = f"the beginning {'x' * 200_000} the end"
        put, marked = a_record(last_error=error), a_record()
        store.put([put, marked])
        assert store.mark(marked.id, lease="", last_error=error)
        for each in (put, marked):
            found = store.get(each.id)
            assert found is not None
            assert found.last_error.startswith("the beginning ") and found.last_error.endswith(" the end")

    def test_a_leased_record_is_not_leased_again_until_the_lease_is_over(self, store: TaskStore) -> None:
        store.put([a_record()])
        [first] = store.lease_due(now=NOW, limit=5, seconds=60)
        assert store.lease_due(now=NOW + 59, limit=5, seconds=60) == []
        [second] = store.lease_due(now=NOW + 60, limit=5, seconds=60)
        assert second.id == first.id and second.lease != first.lease

    def test_mark_changes_what_its_lease_holds(self, store: TaskStore) -> None:
        record = a_record(payload=b"p")
        store.put([record])
        [leased] = store.lease_due(now=NOW, limit=1, seconds=60)
        changes: dict[str, Any] = {"state": State.DEAD, "reason": "held", "attempts": 2, "doubtful_since": NOW}
        assert store.mark(record.id, lease=leased.lease, **changes)
        assert store.get(record.id) == replace(record, due=NOW + 60, **changes)

    def test_mark_under_a_stale_lease_changes_nothing(self, store: TaskStore) -> None:
        record = a_record()
        store.put([record])
        [stale] = store.lease_due(now=NOW, limit=1, seconds=60)
        [fresh] = store.lease_due(now=NOW + 60, limit=1, seconds=60)
        assert not store.mark(record.id, lease=stale.lease, state=State.DEAD)
        assert not store.mark(record.id, lease="", state=State.DEAD)
        found = store.get(record.id)
        assert found is not None and found.state is State.PENDING and found.lease == fresh.lease

    def test_a_fresh_record_is_marked_by_its_sender_without_a_lease(self, store: TaskStore) -> None:
        record = a_record()
        store.put([record])
        assert store.mark(record.id, lease="", attempts=1)
        assert store.get(record.id) == replace(record, attempts=1)

    def test_mark_never_creates_a_record(self, store: TaskStore) -> None:
        gone = new_id()
        assert not store.mark(gone, lease="", state=State.DEAD)
        assert store.get(gone) is None and store.count(State.DEAD) == 0

    def test_mark_can_pass_the_lease_on_and_add_a_payload(self, store: TaskStore) -> None:
        record = a_record()
        store.put([record])
        [leased] = store.lease_due(now=NOW, limit=1, seconds=60)
        payload = b"p" * 1_500_000
        assert store.mark(record.id, lease=leased.lease, new_lease=leased.lease, envelope=b"claim", payload=payload)
        found = store.get(record.id)
        assert found is not None and (found.lease, found.envelope, found.payload) == (leased.lease, b"claim", payload)

    def test_mark_changes_the_routing(self, store: TaskStore) -> None:
        record = a_record(state=State.DEAD)
        store.put([record])
        routing = Routing(queue="q", name="again", headers={"A": "b"})
        assert store.mark(record.id, lease="", state=State.PENDING, routing=routing)
        assert store.get(record.id) == replace(record, state=State.PENDING, routing=routing)

    def test_list_pages_by_id(self, store: TaskStore) -> None:
        dead = sorted((a_record(state=State.DEAD) for _ in range(5)), key=lambda each: each.id)
        store.put([*dead, a_record()])
        first = store.list(State.DEAD, limit=3)
        assert [each.id for each in first] == [each.id for each in dead[:3]]
        rest = store.list(State.DEAD, limit=3, after=first[-1].id)
        assert [each.id for each in rest] == [each.id for each in dead[3:]]
        name: Any = "dead"  # which will do for a state
        assert (store.list(name, limit=3), store.count(name)) == (first, 5)
        assert rest[0].label == dead[3].label

    def test_count_and_oldest_pending(self, store: TaskStore) -> None:
        assert (store.count(State.PENDING), store.oldest_pending()) == (0, None)
        store.put([a_record(created=NOW + 5), a_record(created=NOW + 2), a_record(created=NOW, state=State.DEAD)])
        assert (store.count(State.PENDING), store.oldest_pending()) == (2, NOW + 2)

    @pytest.mark.parametrize("state", [State.PENDING, State.SENT, State.FAILING])
    def test_count_of_what_is_due(self, store: TaskStore, state: State) -> None:
        store.put([a_record(state=state, due=NOW + later) for later in (-1, 0, 1)])
        assert (store.count(state, due=NOW), store.count(state)) == (2, 3)

    def test_count_of_the_unverified(self, store: TaskStore) -> None:
        assert store.count_unverified() == 0
        letters = [a_record(state=State.DEAD, verified=verified) for verified in (True, False, False)]
        store.put([*letters, a_record(verified=False)])
        assert store.count_unverified() == 2

    def test_count_of_recent_letters(self, store: TaskStore) -> None:
        assert store.count_dead(NOW) == 0
        store.put([a_record(state=State.DEAD, last_attempt=NOW + later) for later in (-1, 0, 1)])
        store.put([a_record(state=State.FAILING, last_attempt=NOW), a_record(state=State.DEAD)])
        assert store.count_dead(NOW) == 2

    def test_letters_expire_by_their_last_attempt_or_their_creation(self, store: TaskStore) -> None:
        old = [
            a_record(state=State.DEAD, created=NOW - 50, last_attempt=NOW - 11),
            a_record(state=State.DEAD, created=NOW - 11, payload=b"p"),
            a_record(state=State.DEAD, created=NOW - 50, last_attempt=NOW - 40, payload=b"p" * 1_000_000),
        ]
        kept = [
            a_record(state=State.DEAD, created=NOW - 50, last_attempt=NOW - 10),
            a_record(state=State.DEAD, created=NOW - 10),
            *(
                a_record(state=each, created=NOW - 50, last_attempt=NOW - 40)
                for each in State
                if each is not State.DEAD
            ),
            *(a_record(state=each, created=NOW - 50) for each in State if each != State.DEAD),
        ]
        store.put([*old, *kept])
        assert store.expire(NOW - 10, limit=2) == 2
        assert store.expire(NOW - 10, limit=2) == 1
        assert store.expire(NOW - 10, limit=2) == 0
        assert [store.get(each.id) for each in old] == [None] * 3
        assert all(store.get(each.id) == each for each in kept)

    def test_a_letter_is_rerun_as_another_record_or_not_at_all(self, store: TaskStore) -> None:
        letter, again = a_record(state=State.DEAD, payload=b"p"), a_record(payload=b"p")
        store.put([letter])
        with pytest.raises(KeyError), store.transaction():
            assert store.delete([letter.id], lease=letter.lease) == 1
            store.put([again])
            raise KeyError
        assert (store.get(letter.id), store.get(again.id)) == (letter, None)
        with store.transaction():
            assert store.delete([letter.id], lease="somebody else's") == 0
            assert store.delete([letter.id], lease=letter.lease) == 1
            store.put([again])
        assert (store.get(letter.id), store.get(again.id)) == (None, again)

    def test_a_transaction_that_rolls_back_leaves_nothing(self, store: TaskStore) -> None:
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

    def test_hooks_follow_the_commit_in_order(self, store: TaskStore) -> None:
        called: list[object] = []
        record = a_record()
        with store.transaction():
            store.put([record])
            store.on_commit(lambda: called.append(1))
            store.on_commit(lambda: called.append(2))
            assert called == []
        assert called == [1, 2]
        assert store.get(record.id) == record

    def test_a_hook_outside_a_transaction_runs_at_once(self, store: TaskStore) -> None:
        called: list[int] = []
        store.on_commit(lambda: called.append(1))
        assert called == [1]

    def test_a_carried_delete_is_undone_with_its_transaction(self, store: TaskStore) -> None:
        sent = a_record()
        store.put([sent])
        with pytest.raises(RuntimeError), store.transaction():
            store.put([a_record()], [sent.id])
            raise RuntimeError
        assert store.get(sent.id) == sent

    def test_concurrent_callers_never_lease_one_record(self, store: TaskStore) -> None:
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
                self.end_thread(store)

        threads = [threading.Thread(target=worker) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not errors
        assert sorted(taken) == sorted(each.id for each in records)


class DurableTaskStoreContract(TaskStoreContract):
    """The promises of a TaskStore whose records are bytes in some database, where other releases leave theirs, too."""

    def spoil(self, store: Any, record_id: str) -> None:
        """Make a stored record unreadable, for example by a `routing` that is not JSON."""
        raise NotImplementedError(f"{type(self).__name__} needs a method `spoil`.")

    def test_a_record_that_cannot_be_read_holds_up_no_other(self, store: TaskStore) -> None:
        bad, *good = [a_record(due=NOW + number) for number in range(5)]
        store.put([bad, *good])
        self.spoil(store, bad.id)
        assert {each.id for each in store.list(State.PENDING)} == {each.id for each in good}
        taken: list[str] = []
        while leased := store.lease_due(now=NOW + 10, limit=1, seconds=60):
            taken += [each.id for each in leased]
        assert taken == [each.id for each in good]
        assert store.count(State.PENDING) == 5


class TransportContract:
    """The promises of a Transport. Derive a test class, and give it the fixtures `transport` and `queued`.

    The tasks of these tests go to the queues `default`, `mail`, `a` and `b`.
    """

    @pytest.fixture
    def transport(self) -> Transport:
        """Make a transport to an empty queue."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture `transport`.")

    @pytest.fixture
    def queued(self, transport: Transport) -> Queued:
        """Return a function that lists the waiting tasks: (queue, name, body) of each."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture `queued`.")

    def end_thread(self, transport: Transport) -> None:
        """Close what a thread that ends has of the transport, such as its connection."""

    def test_a_task_is_queued_under_the_name_that_is_returned(self, transport: Transport, queued: Queued) -> None:
        name = transport.send(message(queue="mail"))
        assert name and queued() == [("mail", name, b"body")]

    def test_a_task_gets_the_name_that_it_asks_for(self, transport: Transport, queued: Queued) -> None:
        assert transport.send(message(name="N_1-a")) == "N_1-a"
        assert queued() == [("default", "N_1-a", b"body")]

    def test_nameless_tasks_get_names_of_their_own(self, transport: Transport, queued: Queued) -> None:
        names = {transport.send(message()) for _ in range(20)}
        assert len(names) == len(queued()) == 20

    def test_a_name_is_refused_while_it_is_taken(self, transport: Transport, queued: Queued) -> None:
        if not transport.supports_names:
            pytest.skip("This queue does not refuse names.")
        transport.send(message(b"first", name="n"))
        with pytest.raises(TaskAlreadyExistsError):
            transport.send(message(b"second", name="n"))
        assert queued() == [("default", "n", b"first")]

    def test_a_name_is_another_in_another_queue(self, transport: Transport, queued: Queued) -> None:
        transport.send(message(name="n", queue="a"))
        transport.send(message(name="n", queue="b"))
        assert sorted(queued()) == [("a", "n", b"body"), ("b", "n", b"body")]

    @pytest.mark.parametrize("size", [0, 14, 100_000, None])
    def test_a_body_arrives_as_it_was(self, transport: Transport, queued: Queued, size: int | None) -> None:
        """None is the largest."""
        size = transport.max_body if size is None else size
        body = (b"\x00\xff\xc1" * size)[:size]
        transport.send(message(body))
        assert queued()[0][2] == body

    def test_every_routing_is_taken(self, transport: Transport, queued: Queued) -> None:
        transport.send(
            message(
                name=new_id(),
                queue="mail",
                eta=time.time() + 3600.5,
                headers={"X-A": "b"},
                service="s",
                version="v",
                instance="i",
                retry=RetryOptions(
                    max_attempts=3, min_backoff=0.5, max_backoff=2, max_doublings=1, max_retry_duration=60
                ),
                dispatch_deadline=30.0,
            )
        )
        transport.send(message(eta=time.time() - 60))
        assert len(queued()) == 2

    def test_a_check_sends_nothing(self, transport: Transport, queued: Queued) -> None:
        transport.check(message(name=new_id(), eta=time.time() + 60, dispatch_deadline=30.0).routing)
        assert queued() == []

    def test_many_are_answered_in_their_order(self, transport: Transport, queued: Queued) -> None:
        messages = [message(str(number).encode(), name=f"n-{number}") for number in range(230)]
        assert transport.send_many(messages) == [f"n-{number}" for number in range(230)]
        assert sorted(queued()) == sorted(("default", f"n-{number}", str(number).encode()) for number in range(230))

    def test_many_without_names_get_names(self, transport: Transport, queued: Queued) -> None:
        answers = transport.send_many([message(str(number).encode()) for number in range(30)])
        by_name = {name: body for _, name, body in queued()}
        assert [by_name[str(answer)] for answer in answers] == [str(number).encode() for number in range(30)]

    def test_one_refusal_among_many_concerns_nobody_else(self, transport: Transport, queued: Queued) -> None:
        if not transport.supports_names:
            pytest.skip("This queue does not refuse names.")
        transport.send(message(name="n-1"))
        answers = transport.send_many([message(name=f"n-{number}", queue="default") for number in range(3)])
        assert (answers[0], answers[2]) == ("n-0", "n-2")
        assert isinstance(answers[1], TaskAlreadyExistsError)
        assert len(queued()) == 3

    def test_many_may_be_none_and_of_several_queues(self, transport: Transport, queued: Queued) -> None:
        assert transport.send_many([]) == []
        answers = transport.send_many([message(name=f"n-{number}", queue="ab"[number % 2]) for number in range(6)])
        assert answers == [f"n-{number}" for number in range(6)]
        assert [queue for queue, _, _ in sorted(queued())] == ["a"] * 3 + ["b"] * 3

    def test_it_says_whether_it_has_transactions(self, transport: Transport, queued: Queued) -> None:
        assert transport.in_transaction() is False
        if not transport.supports_transactions:
            with pytest.raises(NotImplementedError):
                transport.send_in_transaction(message())
            assert queued() == []

    def test_threads_may_share_it(self, transport: Transport, queued: Queued) -> None:
        errors: list[BaseException] = []

        def worker() -> None:
            try:
                for _ in range(5):
                    transport.send(message())
            except BaseException as error:
                errors.append(error)
            finally:
                self.end_thread(transport)

        threads = [threading.Thread(target=worker) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not errors and len(queued()) == 30

    def test_it_can_be_closed_more_than_once_and_used_again(self, transport: Transport, queued: Queued) -> None:
        transport.close()
        transport.send(message())
        transport.close()
        transport.close()
        assert len(queued()) == 1
