"""What PostgreSQL does to a transaction through no fault of the row: it is called again, and not blamed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections, transaction
from django.db.models import F
from integration.iteration.test_iteration_races import PATIENCE, elsewhere, wait_until_blocked
from testapp import iterations
from testapp.models import Row

from defer_core.testing import drain
from defer_iteration import IterationState
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.stores.django import DjangoIterationStore

NUMBER = 12


def run(alias: str, statement: str, *values: Any) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute(statement, values)


def hit(alias: str, key: Any) -> None:
    Row.objects.using(alias).filter(pk=key).update(hits=F("hits") + 1)


@contextmanager
def own_transaction(alias: str) -> Iterator[None]:
    """The callback's; a savepoint in the page's under `_atomic`."""
    with transaction.atomic(using=alias):
        yield


def deadlock(alias: str, row: Any, keys: list[Any]) -> None:
    """Each of two transactions waits for the other one, and PostgreSQL ends the one that looks first: this one."""

    def other() -> None:
        with transaction.atomic(using=alias):
            run(alias, "SET LOCAL deadlock_timeout = '1min'")
            hit(alias, keys[-1])
            hit(alias, keys[-2])
            transaction.set_rollback(True, using=alias)

    with own_transaction(alias):
        run(alias, "SET LOCAL deadlock_timeout = '100ms'")
        Row.objects.using(alias).filter(pk=keys[-2]).update(done=True)
        waiting = elsewhere(other)
        wait_until_blocked_beside(alias)
        try:
            Row.objects.using(alias).filter(pk=keys[-1]).update(done=True)
        finally:
            others.append(waiting)


def serialization(alias: str, row: Any, keys: list[Any]) -> None:
    """What this transaction has read has been changed since."""
    with own_transaction(alias):
        run(alias, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert Row.objects.using(alias).filter(pk=keys[-1]).exists()
        elsewhere(lambda: hit(alias, keys[-1])).result(PATIENCE)
        Row.objects.using(alias).filter(pk=keys[-1]).update(done=True)


def lock_timeout(alias: str, row: Any, keys: list[Any]) -> None:
    """Another transaction holds a row for too long."""
    with own_transaction(alias):
        run(alias, "SET LOCAL lock_timeout = '50ms'")
        with transaction.atomic(using="held"):
            hit("held", keys[-1])
            try:
                Row.objects.using(alias).filter(pk=keys[-1]).update(done=True)
            finally:
                transaction.set_rollback(True, using="held")


def terminated(alias: str, row: Any, keys: list[Any]) -> None:
    """The connection is cut, as by a restart, and the callback's next statement finds out."""
    cut(alias)
    Row.objects.using(alias).exists()


def cut_unnoticed(alias: str, row: Any, keys: list[Any]) -> None:
    """The connection is cut, and the next who needs it is the checkpoint."""
    cut(alias)


def cut(alias: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        [number] = cursor.fetchone()
    elsewhere(lambda: run(alias, "SELECT pg_terminate_backend(%s, 5000)", number)).result(PATIENCE)


def wait_until_blocked_beside(alias: str) -> None:
    elsewhere(lambda: wait_until_blocked(alias)).result(PATIENCE)


others: list[Any] = []
"""Threads that end once the transaction that they wait for has."""


@pytest.fixture
def held(postgres_alias: str) -> Iterator[None]:
    """A second connection to the same database, in this thread."""
    connections.settings["held"] = connections.settings[postgres_alias]
    yield
    connections["held"].close()
    del connections.settings["held"]
    others.clear()


@pytest.mark.parametrize("batch", [None, 10])
@pytest.mark.parametrize("atomic", [False, True])
@pytest.mark.parametrize("mishap", [deadlock, serialization, lock_timeout, terminated, cut_unnoticed])
def test_what_befalls_a_row_is_not_held_against_it(
    races: Any, postgres_alias: str, held: None, mishap: Callable[..., None], atomic: bool, batch: int | None
) -> None:
    if atomic and mishap is serialization:
        mishap = serialization_of_the_page
    alias = postgres_alias
    Row.objects.using(alias).bulk_create([Row(number=number) for number in range(NUMBER)])
    keys = list(Row.objects.using(alias).order_by("pk").values_list("pk", flat=True))
    happened: list[int] = []

    def once(row: Any) -> None:
        if row.pk == keys[5] and not happened:
            happened.append(1)
            mishap(alias, row, keys)
        if atomic:
            Row.objects.using(alias).filter(pk=row.pk).update(rank=F("number") + 1)

    iterations.before.append(once)
    handle = walk(
        Row.objects.using(alias), iterations.batch_callback if batch else iterations.callback, iterations.finalize,
        _shards=1, _on_error="fail", _max_attempts=1, _delete_marker=False, _atomic=atomic, _using=alias, _batch=batch,
    )  # fmt: skip
    drain(races, max_attempts=3)
    for other in others:
        other.result(PATIENCE)
    look = handle.progress()
    assert (look.state, look.rows, look.counters) == (IterationState.DONE, NUMBER, {"passed": NUMBER}), look
    assert happened and set(iterations.seen) == set(keys) and iterations.finalized == [()]
    if atomic:
        assert set(Row.objects.using(alias).values_list("rank", "number")) == {(n + 1, n) for n in range(NUMBER)}


def serialization_of_the_page(alias: str, row: Any, keys: list[Any]) -> None:
    """A page's transaction has begun long since: its failure to serialise is raised by hand, by PostgreSQL itself."""
    run(alias, "DO $$ BEGIN RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001'; END $$")


def test_a_row_that_is_cut_off_at_its_commit_is_hit_once(
    races: Any, postgres_alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a page was committed when its connection was lost is found out by the next attempt, not guessed."""
    alias = postgres_alias
    Row.objects.using(alias).bulk_create([Row(number=number) for number in range(NUMBER)])
    commits: list[int] = []
    commit = connections[alias].__class__._commit

    def lost(self: Any) -> None:
        commit(self)
        if self.alias == alias and iterations.seen and not commits:
            commits.append(1)
            cut(alias)
            self.connection.execute("SELECT 1")  # raises, as the commit's answer would

    def hit_row(row: Any) -> None:
        hit(alias, row.pk)

    iterations.before.append(hit_row)
    handle = walk(
        Row.objects.using(alias), iterations.callback, iterations.finalize,
        _shards=1, _on_error="fail", _max_attempts=1, _delete_marker=False, _atomic=True, _using=alias,
    )  # fmt: skip
    monkeypatch.setattr(connections[alias].__class__, "_commit", lost)
    drain(races, max_attempts=3)
    assert commits and handle.progress().state is IterationState.DONE
    assert set(Row.objects.using(alias).values_list("hits", flat=True)) == {1}


def test_a_protocol_transaction_that_meets_another_is_begun_again(races: Any, postgres_alias: str) -> None:
    store, tries = DjangoIterationStore(postgres_alias), [0]

    def work() -> str:
        tries[0] += 1
        if tries[0] < 3:
            run(postgres_alias, "DO $$ BEGIN RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01'; END $$")
        return "done"

    assert store.transact(work) == "done" and tries == [3]
