"""`_atomic=True` on a Datastore: exactly once, within what its transactions are like."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest import mock

import pytest
from django.db import OperationalError, connections
from django.db.models import F
from integration.iteration import workers
from testapp import iterations
from testapp.models import Ledger, Row, Word
from testapp.tasks import calls as recorded
from testapp.tasks import record

from defer_core import defer
from defer_core.testing import drain
from defer_django.datastore import TRIES
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.context import watching
from defer_iteration.model.iteration import IterationState

Aborted = pytest.importorskip("google.api_core.exceptions").Aborted

pytestmark = [pytest.mark.on_gcloudc, pytest.mark.django_db(transaction=True)]


class Killed(BaseException):
    """The process dies."""


def hit(row: Any) -> None:
    """Read, change and save."""
    row.hits += 1
    row.save()


def hits() -> dict[Any, int]:
    return dict(Row.objects.values_list("pk", "hits"))


def start(**options: Any) -> Any:
    return walk(Row.objects.all(), iterations.callback, iterations.finalize, _atomic=True, **options)


def unexpected(error: Exception, calls: int) -> None:
    raise error


@contextmanager
def committing(do: Any) -> Iterator[None]:
    """What goes to the client in place of each commit."""
    from gcloudc.db.backends.datastore.base import Connection

    commit = Connection._commit
    with mock.patch.object(Connection, "_commit", lambda self: do(self, commit)):
        yield


def rows_at_once(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr("defer_iteration.stores.datastore.DatastoreIterationStore.atomic_rows", number)


@pytest.mark.parametrize("seed", range(4))
def test_kills_in_rows_and_before_and_after_commits(
    queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rows_at_once(monkeypatch, 8)
    dice, died = random.Random(seed), Counter[str]()

    def maybe_die(chance: float, where: str) -> None:
        if dice.random() < chance:
            died[where] += 1
            raise Killed

    def commit_or_die(self: Any, commit: Any) -> None:
        try:
            maybe_die(0.15, "before")
        except Killed:
            self._rollback()
            raise
        commit(self)
        maybe_die(0.15, "after")

    iterations.before += [hit, lambda row: maybe_die(0.04, "row")]
    keys = rows(50)
    start(_shards=2, _delete_marker=False)
    with committing(commit_or_die):
        for _ in range(500):
            with suppress(Killed):
                drain(queue)
                break
    assert hits() == dict.fromkeys(keys, 1)
    assert died["row"] and died["before"] + died["after"]
    assert iterations.counters[0] == {"passed": 50} and set(iterations.finalized) == {()}


def test_workers_at_once_some_of_which_die(queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """And tasks that two of them have at hand; few rows, for the emulator locks whole kinds."""
    rows_at_once(monkeypatch, 5)
    keys, dice, died = rows(20), random.Random(3), []

    def maybe_die(row: Any) -> None:
        if len(died) < 3 and dice.random() < 0.2:
            died.append(row.pk)
            raise workers.Killed

    iterations.before += [hit, maybe_die]
    start(_shards=2, _delete_marker=False)
    workers.finish(queue, seconds=200, workers=2, lost=(workers.Killed, OperationalError))
    assert len(died) == 3 and hits() == dict.fromkeys(keys, 1)
    assert set(iterations.finalized) == {()} and iterations.counters[0] == {"passed": 20}


def test_others_who_write_the_same_rows(queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`save` writes every column of a row, and yet no write is lost."""
    rows_at_once(monkeypatch, 5)
    keys, over, ranks = rows(30, rank=0), threading.Event(), Counter[Any]()

    def write() -> None:
        dice = random.Random(1)
        try:
            while not over.is_set():
                key = dice.choice(keys)
                with suppress(OperationalError):
                    ranks[key] += Row.objects.filter(pk=key).update(rank=F("rank") + 1)
        finally:
            connections.close_all()

    iterations.before.append(hit)
    start(_shards=2)
    other = threading.Thread(target=write)
    other.start()
    try:
        drain(queue)
    finally:
        over.set()
        other.join()
    assert hits() == dict.fromkeys(keys, 1)
    assert {key: rank for key, rank in Row.objects.values_list("pk", "rank") if rank} == +ranks != {}
    assert iterations.counters == [{"passed": 30}]


def test_an_aborted_page_begins_again(queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its commit, and by a read of the callback's: nothing counts twice, and no row is blamed."""
    rows_at_once(monkeypatch, 4)
    keys, aborted = rows(12), []

    def commit_later(self: Any, commit: Any) -> None:
        pages = len(set(iterations.seen))
        if iterations.seen and aborted.count(pages) < 3:
            aborted.append(pages)
            self._rollback()
            raise Aborted("Transaction lock timeout.")
        commit(self)

    def read(row: Any) -> None:
        if row.pk == keys[5] and "read" not in aborted:
            aborted.append("read")
            with mock.patch("gcloudc.db.backends.datastore.base.Connection._get", side_effect=Aborted("Contention.")):
                Row.objects.get(pk=row.pk)

    iterations.before += [hit, read]
    handle = start(_shards=1, _delete_marker=False)
    with committing(commit_later), watching(unexpected):
        drain(queue)
    assert Counter(aborted) == {"read": 1, 4: 3, 8: 3, 12: 3}
    assert hits() == dict.fromkeys(keys, 1)
    assert iterations.counters == [{"passed": 12}]
    [shard] = handle.progress().shards
    assert shard.rows == 12 and (shard.generation, shard.attempts) == (0, 0)


def test_a_callback_that_is_aborted_time_and_again_hands_over(queue: Any, rows: Any) -> None:
    keys, calls = rows(6), Counter[Any]()

    def contend(row: Any) -> None:
        calls[row.pk] += 1
        if row.pk == keys[3] and calls[row.pk] <= TRIES:
            raise OperationalError("Transaction lock timeout.")

    told: list[Any] = []
    iterations.before += [hit, contend]
    start(_shards=1)
    with watching(lambda error, attempts: told.append((type(error), attempts))):
        drain(queue)
    assert told == [], "which is not the row's failure"
    assert calls[keys[3]] == TRIES + 1 and hits() == dict.fromkeys(keys, 1)
    assert iterations.counters == [{"passed": 6}]


def test_what_the_commit_refuses_is_its_rows_failure(queue: Any, rows: Any) -> None:
    """Unique columns are looked at there. The rows beside it are not to blame, and lose nothing."""
    Ledger.objects.create(key="taken")
    keys = rows(12)
    bad = keys[6]
    iterations.before += [hit, lambda row: Ledger.objects.create(key="taken" if row.pk == bad else str(row.pk))]
    handle = start(_shards=1, _on_error="quarantine", _max_attempts=2)
    drain(queue)
    assert hits() == dict.fromkeys(keys, 1) | {bad: 0}
    assert set(Ledger.objects.values_list("key", flat=True)) == {"taken", *map(str, keys)} - {str(bad)}
    [row] = handle.progress().quarantined
    assert row.key == (bad,) and row.attempts == 2 and "IntegrityError" in row.error
    assert iterations.finalized == [()] and iterations.counters == [{"passed": 11}]


def test_a_query_about_what_the_rows_before_have_written(queue: Any, rows: Any) -> None:
    """`gcloudc` refuses it in their transaction: so it is asked in one of its own."""
    keys, done = rows(7), []

    def count(row: Any) -> None:
        done.append(len(Row.objects.filter(done=True)))
        row.done = True
        hit(row)

    iterations.before.append(count)
    start(_shards=1)
    with watching(unexpected):
        drain(queue)
    assert hits() == dict.fromkeys(keys, 1) and sorted(set(done)) == list(range(7))
    assert iterations.counters == [{"passed": 7}]


def test_a_page_ends_before_its_writes_are_too_many(queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("defer_iteration.stores.datastore.FULL", 24)
    rows(20)
    iterations.before += [hit, lambda row: [Word.objects.create(text=f"{row.pk} {each}") for each in range(5)]]
    iterations.before.append(lambda row: defer(record, row.pk))
    start(_shards=1)
    sizes: list[int] = []

    def noting(self: Any, commit: Any) -> None:
        sizes.append(len(self._txn.mutations))
        commit(self)

    with committing(noting):
        drain(queue)
    assert 24 <= max(sizes) < 24 + 7 + 3  # one row's, and the checkpoint with the deletes that ride along
    assert Word.objects.count() == 100


@pytest.mark.parametrize("order", ["rank", "number"])
def test_the_order_of_a_field(queue: Any, monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    rows_at_once(monkeypatch, 4)
    Row.objects.bulk_create([Row(number=index % 3, rank=[None, 1, 2][index % 3]) for index in range(40)])
    raised: list[Any] = []

    def fail(row: Any) -> None:
        if row.number == 1 and len(raised) < 4 and row.pk not in raised:
            raised.append(row.pk)
            raise ValueError

    iterations.before += [hit, fail]
    start(_shards=3, order_field=order)
    drain(queue)
    assert len(raised) == 4 and set(hits().values()) == {1}
    assert iterations.counters == [{"passed": 40}]


def test_a_callback_that_deletes_its_row(queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows_at_once(monkeypatch, 3)
    keys = rows(8)
    iterations.before.append(lambda row: Row.objects.filter(pk=row.pk).delete())
    start(_shards=1)
    drain(queue)
    assert not Row.objects.exists() and iterations.times() == dict.fromkeys(keys, 1)
    assert iterations.counters == [{"passed": 8}]


def test_tasks_of_callbacks_are_of_the_same_transaction(queue: Any, rows: Any) -> None:
    keys, calls = rows(10), Counter[Any]()

    def fail_at_first(row: Any) -> None:
        calls[row.pk] += 1
        if row.pk in (keys[2], keys[7]) and calls[row.pk] < 3:
            raise ValueError

    recorded.clear()
    iterations.before += [hit, lambda row: defer(record, row.pk), fail_at_first]
    start(_shards=1)
    drain(queue)
    assert hits() == dict.fromkeys(keys, 1)
    assert sorted(key for (key,) in recorded) == keys


def test_a_pause_in_a_callback_is_of_its_page_and_fail_stops(queue: Any, rows: Any) -> None:
    keys, resumed = rows(8), []

    def pause(row: Any) -> None:
        if row.pk == keys[1] and not resumed:
            assert handle.pause()

    def fail(row: Any) -> None:
        if row.pk == keys[5]:
            raise ValueError("poison")

    iterations.before += [hit, pause, fail]
    handle = start(_shards=1, _on_error="fail", _max_attempts=2)
    drain(queue)
    assert handle.progress().state is IterationState.PAUSED
    assert hits() == dict.fromkeys(keys, 0) | dict.fromkeys(keys[:5], 1)
    resumed.append(handle.resume())
    drain(queue)
    progress = handle.progress()
    assert progress.state is IterationState.FAILED and "poison" in progress.reason
    assert hits() == dict.fromkeys(keys, 0) | dict.fromkeys(keys[:5], 1) and iterations.finalized == []
