"""Dead letters and the command line: list, show, re-run, drop."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from defer_core import Delivery, Outcome, PermanentTaskFailure, clock, config, dead, defer, execute
from defer_core.__main__ import main
from defer_core.errors import DecodeError, UnknownKeyError
from defer_core.record import State
from defer_core.sweep import sweep
from defer_core.testing import MemoryStore, MemoryTransport, drain, in_memory

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


@pytest.mark.parametrize("args", [(1,), (os.urandom(300_000),)], ids=["inline", "claimed"])
def test_a_rerun_has_a_new_name_and_runs(queue: MemoryTransport, store: MemoryStore, args: tuple[Any, ...]) -> None:
    letter = store.get(a_dead_letter(store, *args))
    assert letter is not None
    mend()
    handle = dead.rerun(letter.id, store)
    assert handle.was_enqueued and handle.name != letter.routing.name and handle.queue_name == "mail"
    drain()
    assert calls == [args, args]
    assert store.count(State.DEAD) == 0


def test_a_rerun_in_a_transaction_follows_its_commit(queue: MemoryTransport, store: MemoryStore) -> None:
    letter_id = a_dead_letter(store)
    with pytest.raises(RuntimeError), store.transaction():
        dead.rerun(letter_id, store)
        raise RuntimeError
    assert queue.queued() == [] and store.count(State.DEAD) == 1
    with store.transaction():
        dead.rerun(letter_id, store)
        assert queue.queued() == []
    assert len(queue.queued()) == 1


def test_a_rerun_that_fails_is_a_dead_letter_again(queue: MemoryTransport, store: MemoryStore) -> None:
    dead.rerun(a_dead_letter(store), store)
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
            dead.rerun(letter.id, store)
        assert store.count(State.DEAD) == 1
    mend()
    with in_memory(store=store, keys=["new", "old"]):
        dead.rerun(letter.id, store)
        drain()
    assert calls == [()]


def test_a_letter_whose_key_is_gone_by_now_says_so(store: MemoryStore) -> None:
    with in_memory(store=store, keys=["old"]):
        letter = a_dead_letter(store)
    with in_memory(store=store, keys=["new"]) as queue:
        with pytest.raises(UnknownKeyError):
            dead.rerun(letter, store)
        assert (store.count(State.DEAD), queue.queued()) == (1, [])


def test_a_pickle_of_an_older_library_is_rerun_once_those_are_accepted(store: MemoryStore) -> None:
    body = pickle.dumps((flaky, (), {}))
    with in_memory(store=store, keys=["key"]):
        assert execute(body, Delivery(retry_count=0, started=0)) is Outcome.PERMANENT
        [letter] = store.list(State.DEAD)
        assert not letter.verified
        with pytest.raises(DecodeError):
            dead.rerun(letter.id, store)
    mend()
    with in_memory(store=store, keys=["key"], accept_legacy_pickles=True):
        dead.rerun(letter.id, store)
        drain()
    assert calls == [()]


def test_a_dropped_letter_is_gone_and_a_rerun_one_is_not_dropped(queue: MemoryTransport, store: MemoryStore) -> None:
    letter_id = a_dead_letter(store)
    dead.rerun(letter_id, store)
    with pytest.raises(KeyError):
        dead.drop(letter_id, store)
    letter_id = a_dead_letter(store)
    assert dead.drop(letter_id, store)
    assert store.get(letter_id) is None


def test_what_somebody_else_has_changed_meanwhile_is_neither_rerun_nor_dropped(
    queue: MemoryTransport, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = dead.find(a_dead_letter(store), store)
    monkeypatch.setattr(store, "get", lambda _: replace(letter, lease="of before"))
    with pytest.raises(KeyError, match="changed by somebody else"):
        dead.rerun(letter.id, store)
    assert not dead.drop(letter.id, store)
    assert queue.queued() == [] and store.count(State.DEAD) == 1


@pytest.mark.parametrize(("url", "expected"), [(None, "/_ah/queue/deferred"), ("/mine", "/mine")])
def test_a_rerun_has_all_its_tries_again_and_goes_where_it_went(
    queue: MemoryTransport, store: MemoryStore, url: str | None, expected: str
) -> None:
    letter = dead.find(a_dead_letter(store), store)
    store.mark(letter.id, lease=letter.lease, attempts=9, doubtful_since=5.0, routing=replace(letter.routing, url=url))
    assert dead.rerun(letter.id, store).url == expected
    again = store.get(letter.id)
    assert again is not None and (again.attempts, again.doubtful_since, again.reason) == (0, None, "")


def test_without_a_retention_dead_letters_are_kept_for_ever(store: MemoryStore) -> None:
    with in_memory(store=store, dead_retention=0):
        a_dead_letter(store)
        with clock.replaced(lambda: 1e11):
            sweep()
    assert store.count(State.DEAD) == 1


def test_an_expiry_that_read_before_a_rerun_deletes_nothing(queue: MemoryTransport, store: MemoryStore) -> None:
    letter_id = a_dead_letter(store)
    stale = dead.find(letter_id, store)
    dead.rerun(letter_id, store)
    assert store.delete([letter_id], lease=stale.lease) == 0


def test_one_letter_that_does_not_verify_does_not_hold_up_the_others(
    store: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    with in_memory(store=store, keys=["key"]) as queue:
        for number in range(6):
            a_dead_letter(store, number)
        letter_ids = {letter.id for letter in store.list(State.DEAD)}
        assert execute(b"no task", Delivery(retry_count=0, started=0)) is Outcome.PERMANENT
        assert main(["dead", "rerun", "all"]) == 1
        told = capsys.readouterr()
        assert {line.partition(":")[0] for line in told.out.splitlines()} == letter_ids and len(queue.queued()) == 6
        assert store.list(State.DEAD)[0].id in told.err and "no envelope" in told.err


def test_the_list_is_read_by_the_page_and_one_letter_alone(
    queue: MemoryTransport, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter_id, reads = a_dead_letter(store), []
    monkeypatch.setattr(store, "get", lambda *args: reads.append("get"))
    assert main(["dead", "list"]) == 0 and reads == []
    monkeypatch.undo()
    monkeypatch.setattr(store, "list", lambda *args, **kwargs: reads.append("list"))
    assert main(["dead", "show", letter_id]) == 0 and reads == []


def test_the_commands(queue: MemoryTransport, store: MemoryStore, capsys: pytest.CaptureFixture[str]) -> None:
    letter_id = a_dead_letter(store)
    assert main(["dead", "list"]) == 0
    line = capsys.readouterr().out
    assert main(["dead"]) == 0
    assert capsys.readouterr().out == line
    assert letter_id in line and "permanent" in line and "mail" in line and "PermanentTaskFailure: not yet" in line
    assert main(["dead", "show", letter_id]) == 0
    assert "Traceback" in capsys.readouterr().out
    assert main(["sweep"]) == 0
    assert "dead 1" in capsys.readouterr().out
    mend()
    assert main(["dead", "rerun", "all"]) == 0
    drain()
    assert calls == [(), ()]
    assert main(["dead", "drop", letter_id]) == 1
    assert letter_id in capsys.readouterr().err
    assert main(["dead", "drop"]) == 1


def test_a_letter_without_a_call_is_listed_by_its_task(
    queue: MemoryTransport, store: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    delivery = Delivery(task_name="the-task", queue="mail")
    dead.bury(b"", delivery, None, config.current(), reason="missing payload", store=store)
    assert main(["dead", "list"]) == 0
    assert "missing payload  mail  the-task" in capsys.readouterr().out


def test_the_commands_need_a_store(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(config, "_explicit", config.Config())
    assert main(["sweep"]) == 1
    assert "DEFER_STORE" in capsys.readouterr().err


def test_a_foreign_body_is_sent_again_as_it_came(store: MemoryStore) -> None:
    import pickle

    body = pickle.dumps((flaky, (5,), {}), 2)
    mend()
    with in_memory(store=store):
        assert execute(body, Delivery(retry_count=0)) is Outcome.PERMANENT
    [letter] = store.list(State.DEAD)
    with in_memory(store=store, accept_legacy_pickles=True) as queue:
        dead.rerun(letter.id, store)
        assert queue.queued()[0].message.body == body
