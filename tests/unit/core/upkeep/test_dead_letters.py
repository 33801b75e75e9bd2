"""Dead letters: kept, re-run, dropped, expired."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from defer_core import Delivery, Outcome, PermanentTaskFailure, clock, defer, execute
from defer_core.errors import DecodeError, UnknownKeyError
from defer_core.record import State
from defer_core.testing import MemoryStore, MemoryTransport, drain, in_memory
from defer_core.upkeep import dead_letters
from defer_core.upkeep.sweep import sweep

fails = True
calls: list[Any] = []


def flaky(*args: Any) -> None:
    calls.append(args)
    if fails:
        raise PermanentTaskFailure("not yet")


@pytest.fixture
def store() -> MemoryStore:
    global fails
    fails = True
    calls.clear()
    return MemoryStore()


@pytest.fixture
def queue(store: MemoryStore) -> Iterator[MemoryTransport]:
    with in_memory(store=store) as transport:
        yield transport


def a_dead_letter(store: MemoryStore, *args: Any) -> str:
    defer(flaky, *args, _queue="mail")
    drain()
    return store.list(State.DEAD)[-1].id


def mend() -> None:
    global fails
    fails = False


def broken(*args: Any) -> None:
    raise ValueError("again and again")


@pytest.mark.parametrize("kept", ["permanent", "failing", "unreadable", "unverified"])
@pytest.mark.parametrize("size", [1, 300_000], ids=["inline", "claimed"])
def test_a_task_is_as_old_as_its_defer_if_that_can_be_believed(store: MemoryStore, kept: str, size: int) -> None:
    with in_memory(store=store, keys=["key"]) as queue:
        with clock.replaced(lambda: 1000.0):
            defer(broken if kept == "failing" else flaky, os.urandom(size), _queue="mail")
        [task] = queue.queued()
        store.put([], forget=store.forgotten.peek())  # of an inline task
        other = {"unreadable": {"forbidden_callables": ["*"]}, "unverified": {"keys": ["another"], "grace": 0}}
        with in_memory(store=store, **{"keys": ["key"], **other.get(kept, {})}), suppress(ValueError):
            with clock.replaced(lambda: 1075.0):
                execute(task.message.body, Delivery(queue="mail", task_name="7f", retry_count=0, target="http"))
    [record] = [each for state in (State.DEAD, State.FAILING) for each in store.list(state)]
    assert record.created == (1075.0 if kept == "unverified" else 1000.0)


@pytest.mark.parametrize("args", [(1,), (os.urandom(300_000),)], ids=["inline", "claimed"])
def test_a_rerun_has_a_new_name_and_runs(queue: MemoryTransport, store: MemoryStore, args: tuple[Any, ...]) -> None:
    letter = store.get(a_dead_letter(store, *args))
    assert letter is not None
    mend()
    handle = dead_letters.rerun(letter.id, store)
    assert handle.was_enqueued and handle.name != letter.routing.name and handle.queue_name == "mail"
    drain()
    assert calls == [args, args]
    assert store.count(State.DEAD) == 0


def test_a_rerun_in_a_transaction_follows_its_commit(queue: MemoryTransport, store: MemoryStore) -> None:
    letter_id = a_dead_letter(store)
    with pytest.raises(RuntimeError), store.transaction():
        dead_letters.rerun(letter_id, store)
        raise RuntimeError
    assert queue.queued() == [] and store.count(State.DEAD) == 1
    with store.transaction():
        dead_letters.rerun(letter_id, store)
        assert queue.queued() == []
    assert len(queue.queued()) == 1


def test_a_rerun_that_fails_is_a_dead_letter_again(queue: MemoryTransport, store: MemoryStore) -> None:
    dead_letters.rerun(a_dead_letter(store), store)
    assert store.count(State.DEAD) == 0
    drain()
    assert store.count(State.DEAD) == 1 and len(calls) == 2


def test_an_unverified_letter_is_rerun_only_if_it_verifies(store: MemoryStore) -> None:
    with in_memory(store=store, keys=["old"]) as queue:
        defer(flaky)
        body = queue.queued()[0].message.body
    with in_memory(store=store, keys=["new"], grace=0):
        assert execute(body, Delivery(retry_count=0, started=0)) is Outcome.PERMANENT
        [letter] = store.list(State.DEAD)
        with pytest.raises(UnknownKeyError):
            dead_letters.rerun(letter.id, store)
        assert store.count(State.DEAD) == 1
    mend()
    with in_memory(store=store, keys=["new", "old"]):
        dead_letters.rerun(letter.id, store)
        drain()
    assert calls == [()]


def test_a_letter_whose_key_is_gone_by_now_says_so(store: MemoryStore) -> None:
    with in_memory(store=store, keys=["old"]):
        letter = a_dead_letter(store)
    with in_memory(store=store, keys=["new"]) as queue:
        with pytest.raises(UnknownKeyError):
            dead_letters.rerun(letter, store)
        assert (store.count(State.DEAD), queue.queued()) == (1, [])


def test_a_pickle_of_an_older_library_is_rerun_once_those_are_accepted(store: MemoryStore) -> None:
    body = pickle.dumps((flaky, (), {}))
    with in_memory(store=store, keys=["key"]):
        assert execute(body, Delivery(retry_count=0, started=0)) is Outcome.PERMANENT
        [letter] = store.list(State.DEAD)
        assert not letter.verified
        with pytest.raises(DecodeError):
            dead_letters.rerun(letter.id, store)
    mend()
    with in_memory(store=store, keys=["key"], accept_legacy_pickles=True):
        dead_letters.rerun(letter.id, store)
        drain()
    assert calls == [()]


def test_a_dropped_letter_is_gone_and_a_rerun_one_is_not_dropped(queue: MemoryTransport, store: MemoryStore) -> None:
    letter_id = a_dead_letter(store)
    dead_letters.rerun(letter_id, store)
    with pytest.raises(KeyError):
        dead_letters.drop(letter_id, store)
    letter_id = a_dead_letter(store)
    assert dead_letters.drop(letter_id, store)
    assert store.get(letter_id) is None


def test_what_somebody_else_has_changed_meanwhile_is_neither_rerun_nor_dropped(
    queue: MemoryTransport, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = dead_letters.find(a_dead_letter(store), store)
    monkeypatch.setattr(store, "get", lambda _: replace(letter, lease="of before"))
    with pytest.raises(KeyError, match="changed by another process"):
        dead_letters.rerun(letter.id, store)
    assert not dead_letters.drop(letter.id, store)
    assert queue.queued() == [] and store.count(State.DEAD) == 1


@pytest.mark.parametrize(("url", "expected"), [(None, "/_ah/queue/deferred"), ("/mine", "/mine")])
def test_a_rerun_has_all_its_tries_again_and_goes_where_it_went(
    queue: MemoryTransport, store: MemoryStore, url: str | None, expected: str
) -> None:
    letter = dead_letters.find(a_dead_letter(store), store)
    store.mark(letter.id, lease=letter.lease, attempts=9, doubtful_since=5.0, routing=replace(letter.routing, url=url))
    handle = dead_letters.rerun(letter.id, store)
    assert handle.url == expected and handle.record_id not in (None, letter.id) and store.get(letter.id) is None
    again = store.get(handle.record_id)
    assert again is not None and (again.attempts, again.doubtful_since, again.reason) == (0, None, "")


def test_without_a_retention_dead_letters_are_kept_for_ever(store: MemoryStore) -> None:
    with in_memory(store=store, dead_retention=0):
        a_dead_letter(store)
        with clock.replaced(lambda: 1e11):
            sweep()
    assert store.count(State.DEAD) == 1


def test_an_expiry_that_read_before_a_rerun_deletes_nothing(queue: MemoryTransport, store: MemoryStore) -> None:
    letter_id = a_dead_letter(store)
    stale = dead_letters.find(letter_id, store)
    dead_letters.rerun(letter_id, store)
    assert store.delete([letter_id], lease=stale.lease) == 0


def test_a_foreign_body_is_sent_again_as_it_came(store: MemoryStore) -> None:
    import pickle

    body = pickle.dumps((flaky, (5,), {}), 2)
    mend()
    with in_memory(store=store):
        assert execute(body, Delivery(retry_count=0)) is Outcome.PERMANENT
    [letter] = store.list(State.DEAD)
    with in_memory(store=store, accept_legacy_pickles=True) as queue:
        dead_letters.rerun(letter.id, store)
        assert queue.queued()[0].message.body == body
