"""Bodies that Djangae and Google's deferred have queued before the switch: they run, or are kept with what to do.

Those of Djangae 2 and of Google were made by these libraries themselves; those of Djangae 1 in its form, by hand.
"""

import pickle
import threading
from pathlib import Path
from unittest import mock

import pytest
from compat import flight_tasks
from django.db import connection
from testapp.models import Row

from defer_core import Delivery, Outcome, configure, execute
from defer_core.config import reset
from defer_core.record import State
from defer_core.stores.memory import MemoryStore
from defer_core.testing import MemoryTransport, drain, run_one
from defer_djangae.markers import DeferIterationMarker, StoredTask

GOLDEN = Path(__file__).parent / "golden/djangae"


def golden(name):
    return (GOLDEN / f"{name}.bin").read_bytes()


@pytest.fixture(autouse=True)
def queue():
    """A memory queue and the Django store, as after the switch."""
    flight_tasks.ran.clear()
    transport = MemoryTransport()
    configure(transport=transport, store="django", accept_legacy_pickles=True, allow_pickle=True, sweep_interval=0.0)
    yield transport
    reset()


def deliver(body, name="legacy-1", retry_count=0):
    return execute(body, Delivery(task_name=name, queue="default", retry_count=retry_count, target="memory"))


def dead():
    from defer_core.config import current

    return current().the_store.list(State.DEAD)


# --- calls ------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", ["djangae1_function", "djangae2_function", "google_function"])
def test_a_function_runs(name):
    assert deliver(golden(name)) is Outcome.DONE
    assert flight_tasks.ran == [("plain", (1, "två"), {"key": [1.5, None]})]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", ["djangae2_method", "google_method"])
def test_a_bound_method_runs(name):
    assert deliver(golden(name)) is Outcome.DONE
    assert flight_tasks.ran == [("add", 42)]


@pytest.mark.django_db(transaction=True)
def test_a_stored_call_of_googles_is_kept_without_its_sdk_and_says_what_to_do():
    with mock.patch.dict("sys.modules", {"google.appengine.ext.deferred.deferred": None}):
        assert deliver(golden("google_stored")) is Outcome.PERMANENT
    (letter,) = dead()
    assert "install appengine-python-standard" in letter.last_error
    assert letter.envelope == golden("google_stored")


@pytest.mark.django_db(transaction=True)
def test_bodies_are_refused_where_pickles_of_older_libraries_are_not_accepted():
    configure(transport=MemoryTransport(), store=MemoryStore(), accept_legacy_pickles=False, sweep_interval=0.0)
    assert deliver(golden("djangae2_function")) is Outcome.PERMANENT
    assert flight_tasks.ran == []


# --- calls that Djangae has stored ------------------------------------------------------------------------------------


@pytest.fixture
def tables(transactional_db):
    """Djangae's own tables, as it has left them."""
    with connection.schema_editor() as editor:
        for model in (DeferIterationMarker, StoredTask):
            editor.create_model(model)
    yield
    with connection.schema_editor() as editor:
        for model in (DeferIterationMarker, StoredTask):
            editor.delete_model(model)


def test_a_stored_call_of_djangaes_runs_and_its_row_is_deleted(tables):
    StoredTask.objects.create(pk=7, data=golden("djangae2_function"))
    assert deliver(golden("djangae2_stored")) is Outcome.DONE
    assert [what for what, *_ in flight_tasks.ran] == ["plain"]
    assert not StoredTask.objects.exists()


def test_a_stored_call_that_is_gone_is_kept(tables):
    assert deliver(golden("djangae2_stored")) is Outcome.PERMANENT
    assert "Row 7 of tasks_deferredtask does not exist" in dead()[0].last_error


@pytest.mark.django_db(transaction=True)
def test_a_stored_call_whose_table_is_gone_is_kept():
    assert deliver(golden("djangae2_stored")) is Outcome.PERMANENT
    assert "tasks_deferredtask cannot be read" in dead()[0].last_error


# --- iterations -------------------------------------------------------------------------------------------------------


@pytest.fixture
def rows(transactional_db):
    """The rows that the golden queries were made over."""
    Row.objects.bulk_create(Row(pk=number + 1, number=number) for number in range(9))


def passed():
    return sorted(number for what, number, *_ in flight_tasks.ran if what == "callback")


def finalized():
    return [call for call in flight_tasks.ran if call[0] == "finalize"]


@pytest.mark.parametrize("name,args", [("djangae1_plan", ("a",)), ("djangae2_plan", ())])
def test_a_plan_becomes_an_iteration_of_ours_once(rows, queue, name, args):
    assert deliver(golden(name)) is Outcome.DONE
    assert deliver(golden(name), retry_count=1) is Outcome.DONE
    drain(queue)
    assert deliver(golden(name), retry_count=2) is Outcome.DONE
    drain(queue)
    assert passed() == list(range(9))
    assert finalized() == [("finalize", args, {"touch": True})]


def test_shards_in_flight_finish_and_finalize_once(tables, rows, queue):
    """Shard 0 was done before the switch, 1 is in the middle, 2 has not begun; each is delivered twice."""
    DeferIterationMarker.objects.create(pk=1, is_ready=True, shard_count=3, shards_complete=1)
    for name in ("djangae2_shard_1_in_the_middle", "djangae2_shard_2"):
        for attempt in range(2):
            assert deliver(golden(name), name=name, retry_count=attempt) is Outcome.DONE
    drain(queue)
    assert passed() == [4, 5, 5, 6, 7, 8]  # Djangae's own ranges of these two shards overlap at 5
    assert finalized() == [("finalize", (), {"touch": True})]
    assert not DeferIterationMarker.objects.exists()
    assert deliver(golden("djangae2_shard_2"), retry_count=2) is Outcome.DONE
    drain(queue)
    assert len(finalized()) == 1


def test_a_shard_is_counted_once_however_often_its_end_runs(tables, rows, queue):
    from defer_djangae.in_flight import shard_ended

    DeferIterationMarker.objects.create(pk=1, is_ready=True, shard_count=3)
    deliver(golden("djangae2_shard_0"))
    drain(queue)
    shard_ended("default", 1, 0, None, flight_tasks.finalize)
    assert DeferIterationMarker.objects.get().shards_complete == 1
    assert finalized() == []


def test_a_kept_marker_is_kept_and_says_that_it_is_finished(tables, rows, queue):
    DeferIterationMarker.objects.create(pk=1, is_ready=True, shard_count=1, delete_on_completion=False)
    deliver(golden("djangae1_shard"))
    drain(queue)
    assert passed() == list(range(9))
    assert finalized() == [("finalize", ("a",), {"touch": True})]
    assert DeferIterationMarker.objects.get().is_finished


def test_a_shard_whose_iteration_is_gone_has_nothing_to_do(tables, rows, queue):
    assert deliver(golden("djangae2_shard_0")) is Outcome.DONE
    assert queue.queued() == []


def test_a_shard_waits_for_djangaes_planner_but_not_for_ever(tables, rows):
    from datetime import timedelta

    from django.utils import timezone

    marker = DeferIterationMarker.objects.create(pk=1, shard_count=1)
    assert deliver(golden("djangae2_shard_0")) is Outcome.RETRY
    DeferIterationMarker.objects.filter(pk=marker.pk).update(created=timezone.now() - timedelta(hours=2))
    assert deliver(golden("djangae2_shard_0")) is Outcome.PERMANENT
    assert "was never planned to its end" in dead()[0].last_error


def test_a_query_of_another_django_is_kept_with_what_to_do(rows):
    func, args, kwargs = pickle.loads(golden("djangae2_plan"))
    del args[1].where
    assert deliver(pickle.dumps((func, args, kwargs))) is Outcome.PERMANENT
    assert "pickled by another release of Django" in dead()[0].last_error
    assert "defer_iteration_with_finalize again" in dead()[0].last_error


def test_a_sliced_query_is_kept_with_what_to_do(rows):
    func, args, kwargs = pickle.loads(golden("djangae2_plan"))
    args[1].set_limits(0, 3)
    assert deliver(pickle.dumps((func, args, kwargs))) is Outcome.PERMANENT
    assert "it is sliced" in dead()[0].last_error


@pytest.mark.on_postgres
def test_the_last_two_shards_may_end_at_once(tables, rows, queue):
    """Each in a transaction of its own, on two connections: neither count is lost, and finalize is deferred once."""
    for _ in range(10):
        flight_tasks.ran.clear()
        queue.clear()  # the names, too: every round has the same
        DeferIterationMarker.objects.create(pk=1, is_ready=True, shard_count=2)
        for number in range(2):
            deliver(golden(f"djangae2_shard_{number}"), name=f"shard-{number}")
        while len(ends := [task for task in queue.queued() if "finalize" in task.name]) < 2:
            run_one(next(task for task in queue.queued() if task not in ends), queue)
        barrier = threading.Barrier(2)
        threads = [threading.Thread(target=end_at_once, args=(task, queue, barrier)) for task in ends]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        drain(queue)
        assert len(finalized()) == 1
        assert not DeferIterationMarker.objects.exists()


def end_at_once(task, queue, barrier):
    barrier.wait(30)
    try:
        run_one(task, queue)
    finally:
        connection.close()
