"""Promises 1 and 2 in Django transactions: a task runs if and only if its transaction commits."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partialmethod
from typing import Any
from unittest import mock

import pytest
from asgiref.sync import async_to_sync
from django.db import DatabaseError, OperationalError, connection, connections, transaction
from django.db.transaction import TransactionManagementError
from django.test import override_settings
from testapp.models import Author
from testapp.tasks import record

from defer_core import (
    BulkSendError,
    ConfigError,
    PayloadTooLargeError,
    Status,
    TaskTooLargeError,
    adefer,
    config,
    defer,
    defer_many,
)
from defer_core.config import configured, current
from defer_core.errors import (
    AmbiguousSendError,
    TaskSizeRefusedError,
    TransportRefusedError,
    TransportUnavailableError,
)
from defer_core.record import State
from defer_core.testing import MemoryTransport, drain
from defer_core.transports.base import Message
from defer_core.upkeep.sweep import sweep
from defer_django.models import DeferredTask

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])
LARGE = random.Random(0).randbytes(300_000)


class Failing(MemoryTransport):
    """A queue that answers with an error as long as there is one."""

    error: Exception | None = None

    def send(self, message: Message) -> str:
        if self.error is not None:
            raise self.error
        return super().send(message)


class Small(MemoryTransport):
    """A queue whose service finds large what the configuration does not; a Claim fits."""

    def send(self, message: Message) -> str:
        if b"large to it" in message.body:
            raise TaskSizeRefusedError("Task size too large")
        return super().send(message)


class CrashError(BaseException):
    """The process dies here."""


def queued() -> int:
    transport = current().the_transport
    assert isinstance(transport, MemoryTransport)
    return len(transport.queued())


def at_commit(using: str = "default") -> list[dict[str, Any]]:
    """What there is once this transaction has committed and before anything is sent. (On Datastore a transaction does
    not see what it has written.)"""
    seen: list[dict[str, Any]] = []

    def look() -> None:
        rows = DeferredTask.objects.using(using).values_list("state", flat=True)
        seen.append({"records": list(rows), "authors": Author.objects.using(using).count(), "queued": queued()})

    transaction.on_commit(look, using=using)
    return seen


@pytest.mark.parametrize("argument", ["small", LARGE], ids=["inline", "claimed"])
@pytest.mark.parametrize("options", [{}, {"_transactional": True}, {"_name": "mine"}], ids=str)
def test_a_rolled_back_task_never_runs(calls: list[Any], argument: Any, options: dict[str, Any]) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        handle = defer(record, argument, **options)
        assert (handle.status, handle.was_enqueued) == (Status.WAITS_FOR_COMMIT, False)
        raise RuntimeError
    sweep_everything()
    drain()
    assert (calls, DeferredTask.objects.count()) == ([], 0)


@pytest.mark.parametrize("argument", ["small", LARGE], ids=["inline", "claimed"])
@pytest.mark.parametrize("options", [{}, {"_transactional": True}, {"_name": "mine"}], ids=str)
def test_a_committed_task_runs_once(calls: list[Any], argument: Any, options: dict[str, Any]) -> None:
    with transaction.atomic():
        seen = at_commit()
        handle = defer(record, argument, **options)
        assert (queued(), handle.was_enqueued) == (0, False)
    assert seen == [{"records": [State.PENDING], "authors": 0, "queued": 0}]
    assert (queued(), handle.was_enqueued) == (1, True)
    sweep_everything()
    drain()
    assert calls == [(argument,)]
    assert DeferredTask.objects.count() == 0


def test_the_record_is_in_the_callers_transaction() -> None:
    """On the caller's connection, not on one of its own: it is there, or gone, with the author."""
    with pytest.raises(RuntimeError), transaction.atomic():
        Author.objects.create(name="Ada")
        defer(record, LARGE)
        raise RuntimeError
    assert (Author.objects.count(), DeferredTask.objects.count()) == (0, 0)
    with transaction.atomic():
        seen = at_commit()
        Author.objects.create(name="Ada")
        defer(record, LARGE)
    assert seen == [{"records": [State.PENDING], "authors": 1, "queued": 0}]


@pytest.mark.on_sql
def test_the_record_is_seen_in_the_callers_transaction_and_nowhere_else() -> None:
    with transaction.atomic():
        defer(record, LARGE)
        assert DeferredTask.objects.count() == 1
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(elsewhere, DeferredTask.objects.count).result() == 0
    assert DeferredTask.objects.count() == 1


@pytest.mark.on_sql
def test_a_rolled_back_inner_block_takes_its_tasks_with_it(calls: list[Any]) -> None:
    with transaction.atomic():
        defer(record, "outer")
        with pytest.raises(RuntimeError), transaction.atomic():
            defer(record, "inner")
            defer(record, LARGE)
            with transaction.atomic():
                defer(record, "innermost")
            raise RuntimeError
        with transaction.atomic():
            defer(record, "second inner")
    sweep_everything()
    drain()
    assert sorted(calls) == [("outer",), ("second inner",)]


@pytest.mark.on_gcloudc
def test_a_rolled_back_inner_block_takes_everything_with_it_where_there_are_no_savepoints(calls: list[Any]) -> None:
    with pytest.raises(TransactionManagementError), transaction.atomic():
        defer(record, "outer")
        with pytest.raises(RuntimeError), transaction.atomic():
            defer(record, "inner")
            raise RuntimeError
        defer(record, "after")
    sweep_everything()
    drain()
    assert (calls, DeferredTask.objects.count()) == ([], 0)


def test_defer_many_follows_the_transaction(calls: list[Any]) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        defer_many(record, [(number,) for number in range(5)])
        raise RuntimeError
    with transaction.atomic():
        defer_many(record, [(number,) for number in range(10, 15)])
        assert queued() == 0
    drain()
    assert calls == [(number,) for number in range(10, 15)]


@pytest.mark.on_gcloudc
def test_the_calls_of_a_default_defer_on_datastore(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the queue's: one; more where the deletes of those before ride along, four rows read at a time. In a
    transaction: none."""
    from google.cloud.datastore_v1.services.datastore.client import DatastoreClient

    calls: list[str] = []
    for name in ("begin_transaction", "commit", "lookup", "run_query"):
        call = getattr(DatastoreClient, name)
        monkeypatch.setattr(DatastoreClient, name, partialmethod(_counted, calls, name, call))

    def taken() -> list[str]:
        found = calls[:]
        calls.clear()
        return found

    for number in range(10):
        defer(record, number)
        assert taken() == ["commit"]
    defer(record, 10)
    assert taken() == ["begin_transaction", "lookup", "lookup", "lookup", "commit"]
    with configured(transport=MemoryTransport(), store="django"), transaction.atomic():
        assert taken() == ["begin_transaction"]
        defer_many(record, [(number,) for number in range(5)])
        assert taken() == []
    assert taken() == ["commit"]


def _counted(client: Any, calls: list[str], name: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    calls.append(name)
    return call(client, *args, **kwargs)


@pytest.mark.on_gcloudc
def test_many_that_fail_half_way_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are more than one commit of a Datastore takes."""
    from defer_django.datastore import DatastoreTaskStore

    commits: list[int] = []
    put = DatastoreTaskStore._put

    def fail_at_third(self: DatastoreTaskStore, rows: list[DeferredTask], forget: Any) -> None:
        commits.append(len(rows))
        if len(commits) == 3:
            raise DatabaseError("no more")
        put(self, rows, forget)

    monkeypatch.setattr(DatastoreTaskStore, "_put", fail_at_third)
    with pytest.raises(DatabaseError, match="no more"):
        defer_many(record, [(LARGE,) for _ in range(30)])
    assert sum(commits[:2]) > 10
    assert (queued(), DeferredTask.objects.count()) == (0, 0)


def test_false_inside_sends_at_once_and_leaves_no_record(calls: list[Any]) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        assert defer(record, "now", _transactional=False).was_enqueued
        assert queued() == 1
        assert DeferredTask.objects.count() == 0
        raise RuntimeError
    drain()
    assert calls == [("now",)]


def test_false_inside_refuses_what_needs_a_record() -> None:
    with transaction.atomic(), pytest.raises(PayloadTooLargeError, match="outside the transaction"):
        defer(record, LARGE, _transactional=False)
    assert (queued(), DeferredTask.objects.count()) == (0, 0)


def test_false_inside_refuses_many_of_which_one_needs_a_record() -> None:
    with transaction.atomic(), pytest.raises(PayloadTooLargeError, match="outside the transaction"):
        defer_many(record, [("small",), (LARGE,)], _transactional=False)
    assert (queued(), DeferredTask.objects.count()) == (0, 0)


def test_false_inside_does_not_store_what_the_service_finds_too_large() -> None:
    transport = Small()
    with configured(transport=transport, store="django"), transaction.atomic():
        with pytest.raises(PayloadTooLargeError, match="outside the transaction"):
            defer(record, "large to it", _transactional=False)
        with pytest.raises(BulkSendError) as caught:
            defer_many(record, [("large to it",)], _transactional=False)
    assert isinstance(caught.value.failures[0], TaskSizeRefusedError)
    assert (transport.queued(), DeferredTask.objects.count()) == ([], 0)


def test_true_outside_sends_at_once(calls: list[Any]) -> None:
    assert defer(record, 1, _transactional=True).was_enqueued
    drain()
    assert calls == [(1,)]


def test_small_over_the_limit_leaves_nothing_behind() -> None:
    with transaction.atomic(), pytest.raises(TaskTooLargeError):
        defer(record, LARGE, _small_task=True)
    assert (queued(), DeferredTask.objects.count()) == (0, 0)


def test_small_in_a_transaction_leaves_its_record_all_the_same(calls: list[Any]) -> None:
    with transaction.atomic():
        seen = at_commit()
        defer(record, "small", _small_task=True)
    assert seen == [{"records": [State.PENDING], "authors": 0, "queued": 0}]
    drain()
    assert calls == [("small",)]


def test_a_failing_hook_before_ours_leaves_the_task_to_the_sweep(calls: list[Any]) -> None:
    def fail() -> None:
        raise RuntimeError("a hook of the project")

    with pytest.raises(RuntimeError, match="a hook of"), transaction.atomic():
        transaction.on_commit(fail)
        handle = defer(record, "kept")
    assert (queued(), handle.was_enqueued) == (0, False)
    sweep_everything()
    drain()
    assert calls == [("kept",)]


def test_a_hook_of_the_stores_that_raises_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """Ours do not raise; should one do so all the same, the project's own hooks and its view go on."""
    later: list[int] = []
    store = current().the_store
    assert store is not None

    def fail() -> None:
        raise RuntimeError("a hook of ours")

    with caplog.at_level(logging.ERROR), transaction.atomic():
        store.on_commit(fail)
        transaction.on_commit(lambda: later.append(1))
    assert later == [1]
    assert "a hook of ours" in caplog.text


def test_our_hook_never_stops_those_behind_it(calls: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    later: list[int] = []
    transport = Failing()
    with configured(transport=transport, store="django", sweep_grace=0.0):
        with transaction.atomic():
            transport.error = ValueError("a bug in a transport")
            defer(record, "kept")
            transaction.on_commit(lambda: later.append(1))
        assert later == [1]
        assert [each.message for each in caplog.records if "the sweep will" in each.message]  # said by us
        transport.error = None
        sweep()
        drain()
    assert calls == [("kept",)]


@pytest.mark.parametrize("argument", ["small", LARGE], ids=["inline", "claimed"])
def test_a_crash_between_commit_and_send_loses_nothing(calls: list[Any], argument: Any) -> None:
    transport = Failing()
    with configured(transport=transport, store="django", sweep_grace=0.0):
        transport.error = CrashError()  # type: ignore[assignment]
        with pytest.raises(CrashError), transaction.atomic():
            defer(record, argument)
        transport.error = None
        assert sweep().counts["sent"] == 1
        drain()
    assert calls == [(argument,)]
    assert DeferredTask.objects.count() == 0


@pytest.mark.parametrize("error", [TransportUnavailableError(), AmbiguousSendError()], ids=["unavailable", "ambiguous"])
@pytest.mark.parametrize("inside", [True, False])
def test_store_and_forward(calls: list[Any], error: Exception, inside: bool) -> None:
    transport = Failing()
    with configured(transport=transport, store="django", sweep_grace=0.0):
        transport.error = error
        if inside:
            with transaction.atomic():
                handle = defer(record, "kept")
        else:
            handle = defer(record, "kept")
        assert handle.status is Status.WAITS_FOR_SWEEP
        transport.error = None
        DeferredTask.objects.update(due=0)
        sweep()
        drain()
    assert calls == [("kept",)]


def test_outside_a_transaction_a_refusal_raises_and_leaves_nothing() -> None:
    transport = Failing()
    with configured(transport=transport, store="django"):
        transport.error = TransportRefusedError("no such queue")
        with pytest.raises(TransportRefusedError):
            defer(record, 1)
    assert DeferredTask.objects.count() == 0


def test_a_task_is_the_transaction_s_also_where_plain_ones_are_kept_elsewhere(calls: list[Any]) -> None:
    with override_settings(DEFER={"TRANSPORT": "memory", "STORE": "memory"}):
        with transaction.atomic():
            seen = at_commit()
            defer(record, "kept")
        assert [each["records"] for each in seen] == [["pending"]]
        with pytest.raises(RuntimeError), transaction.atomic():
            defer(record, "never")
            raise RuntimeError
        defer(record, "plain", _transactional=True)  # outside one it is sent now, as ever under Django
        drain()
    assert sorted(calls) == [("kept",), ("plain",)]


def test_a_coroutine_follows_the_transaction_around_it(calls: list[Any]) -> None:
    async def later(argument: str) -> Status:
        return (await adefer(record, argument)).status

    with pytest.raises(RuntimeError), transaction.atomic():
        assert async_to_sync(later)("never") is Status.WAITS_FOR_COMMIT
        raise RuntimeError
    with transaction.atomic():
        async_to_sync(later)("kept")
        assert queued() == 0
    assert async_to_sync(later)("plain") is Status.SENT
    drain()
    assert sorted(calls) == [("kept",), ("plain",)]


def test_another_alias_has_its_own_transactions_and_records(calls: list[Any]) -> None:
    with transaction.atomic(using="other"):
        seen = at_commit("other")
        handle = defer(record, LARGE, _using="other")
        assert not handle.was_enqueued
    assert seen == [{"records": [State.PENDING], "authors": 0, "queued": 0}]
    assert DeferredTask.objects.using("default").count() == 0
    with pytest.raises(RuntimeError), transaction.atomic(using="other"):
        defer(record, "never", _using="other")
        raise RuntimeError
    drain()
    assert calls == [(LARGE,)]
    assert DeferredTask.objects.using("other").count() == 0


def test_the_sweep_looks_through_every_alias(calls: list[Any]) -> None:
    transport = Failing()
    with configured(transport=transport, store="django", sweep_grace=0.0):
        transport.error = CrashError()  # type: ignore[assignment]
        with pytest.raises(CrashError), transaction.atomic(using="other"):
            defer(record, "there", _using="other")
        transport.error = None
        sweep()
        drain()
    assert calls == [("there",)]


@pytest.mark.on_sql  # a Datastore is not asked for a table
def test_a_database_that_is_down_keeps_no_other_from_being_swept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config.forget()  # a new store does not know yet where its table is
    asked = connections["other"].introspection
    monkeypatch.setattr(asked, "table_names", lambda *args, **kwargs: raised(OperationalError("down")))
    assert [store.alias for store in current().every_store()] == ["default"]
    assert "'other' cannot be read" in caplog.text


def raised(error: Exception) -> Any:
    raise error


def test_a_transaction_of_another_alias_is_not_ours(calls: list[Any]) -> None:
    with transaction.atomic(using="other"):
        assert defer(record, 1).was_enqueued


def test_an_unknown_alias_is_refused() -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        defer(record, 1, _using="nowhere")


@pytest.mark.on_sql
def test_a_missing_table_is_said_to_be_one() -> None:
    with connections["other"].schema_editor() as editor:
        editor.delete_model(DeferredTask)
    try:
        for inside in (True, False):
            with pytest.raises(ConfigError, match=r"'other' has no table .*migrate --database other"):
                if inside:
                    with transaction.atomic(using="other"):
                        defer(record, 1, _using="other", _transactional=True)
                else:
                    defer(record, 1, _using="other")
        sweep_everything()
    finally:
        with connections["other"].schema_editor() as editor:
            editor.create_model(DeferredTask)
    assert queued() == 0


def test_autocommit_off_without_a_transaction_is_an_error() -> None:
    transaction.set_autocommit(False)
    try:
        with pytest.raises(ConfigError, match="Autocommit"):
            defer(record, 1)
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    assert queued() == 0


def test_asking_for_a_transaction_does_not_connect() -> None:
    store = current().the_store
    assert store is not None
    connection.close()
    assert not store.in_transaction()
    assert connection.connection is None


@pytest.mark.on_sql
def test_a_default_defer_outside_a_transaction_is_one_statement(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(10):
        for number in range(10):
            defer(record, number)
    with django_assert_num_queries(4) as captured:  # the deletes of those before ride along
        defer(record, 10)
    assert [query["sql"].split()[0] for query in captured.captured_queries] == ["BEGIN", "INSERT", "DELETE", "COMMIT"]
    assert DeferredTask.objects.count() == 1


def test_a_carried_delete_stays_listed_if_its_transaction_rolls_back() -> None:
    sent = {defer(record, number).record_id for number in range(10)}
    with pytest.raises(RuntimeError), transaction.atomic():
        defer(record, 10)
        raise RuntimeError
    assert DeferredTask.objects.filter(pk__in=sent).count() == 10
    with transaction.atomic():
        defer(record, 11)
    assert DeferredTask.objects.filter(pk__in=sent).count() == 0


def test_the_sweep_drops_what_this_process_has_sent_without_asking_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    defer(record, 1)
    assert DeferredTask.objects.count() == 1
    monkeypatch.setattr(MemoryTransport, "send", mock.Mock(side_effect=AssertionError("the queue was asked")))
    assert sweep().counts == {"dropped": 1}
    assert DeferredTask.objects.count() == 0


def test_signals_of_all_models_do_not_see_our_rows() -> None:
    from django.db.models.signals import post_delete, post_save, pre_save

    seen: list[Any] = []

    def see(sender: Any, **kwargs: Any) -> None:
        seen.append(sender)

    for signal in (pre_save, post_save, post_delete):
        signal.connect(see)
    try:
        defer(record, LARGE)
        defer_many(record, [(1,), (2,)])
        drain()
    finally:
        for signal in (pre_save, post_save, post_delete):
            signal.disconnect(see)
    assert seen == []


def test_the_log_says_that_a_name_was_taken(caplog: pytest.LogCaptureFixture, calls: list[Any]) -> None:
    defer(record, 1, _name="once")
    with caplog.at_level(logging.INFO, "defer"), transaction.atomic():
        handle = defer(record, 2, _name="once")
    assert handle.was_enqueued
    assert "once" in caplog.text
    drain()
    assert calls == [(1,)]


def elsewhere(read: Callable[[], int]) -> int:
    """What another thread reads, on a connection of its own."""
    try:
        return read()
    finally:
        connections.close_all()


def sweep_everything() -> None:
    """As if every grace were over."""
    for alias in connections:
        if DeferredTask._meta.db_table in connections[alias].introspection.table_names():
            DeferredTask.objects.using(alias).update(due=0)
    sweep()
