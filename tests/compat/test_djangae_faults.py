"""The 26 faults of Djangae 2, each through Djangae's own names, and the right behaviour instead."""

import os
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from unittest import mock

import pytest
from compat import djangae_faults as tasks
from djangae import processing
from djangae.tasks import cloud_tasks_location
from djangae.tasks import environment as task_environment
from djangae.tasks.deferred import TimeoutException, defer, defer_iteration_with_finalize
from djangae.tasks.handlers import deferred_handler
from djangae.test import TaskFailedError, get_task_count, process_task_queues
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connection, transaction
from django.test import RequestFactory, override_settings
from django.test.utils import CaptureQueriesContext
from testapp.models import Author, Book, Row

from defer_core import Delivery, Outcome, clock, configure, execute
from defer_core.config import current, reset
from defer_core.errors import AmbiguousSendError, OptionError, TaskSizeRefusedError, TransportUnavailableError
from defer_core.record import State
from defer_core.testing import MemoryTransport, drain, run_one
from defer_core.upkeep.sweep import sweep
from defer_django.conf import default_timezone
from defer_django.store import DjangoTaskStore
from defer_iteration.models import Iteration, Shard
from defer_iteration.rows import queryset
from defer_iteration.stores.django import DjangoIterationStore

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


class Queue(MemoryTransport):
    """A memory queue whose `refusals` are raised, first come first served, instead of taking a task."""

    def __init__(self):
        super().__init__()
        self.refusals = []

    def send(self, message):
        for refuses, error in self.refusals:
            if refuses(message):
                self.refusals.remove((refuses, error))
                raise error
        return super().send(message)

    def refuse(self, error, when=lambda message: True):
        self.refusals.append((when, error))


@pytest.fixture(autouse=True)
def queue():
    tasks.reset()
    transport = Queue()
    configure(
        transport=transport, store="django", accept_legacy_pickles=True, sweep_interval=0.0, timezone=default_timezone
    )
    yield transport
    reset()


@contextmanager
def later(seconds):
    """The time of `seconds` from now."""
    now = clock.now()
    with clock.replaced(lambda: now + seconds):
        yield


def make_rows(count=25):
    Row.objects.bulk_create(Row(number=number) for number in range(count))


def iterate(queryset=None, callback=tasks.done, *args, **kwargs):
    queryset = Row.objects.all() if queryset is None else queryset
    return defer_iteration_with_finalize(queryset, callback, tasks.finalize, *args, **kwargs)


def assert_complete(count=25):
    assert tasks.rows() == Counter(range(count))
    assert tasks.finalized() == 1


def records(state=State.PENDING):
    return current().the_store.list(state)


def commit_fails_once(when):
    """The next commit at which `when()` holds fails with a transient error, and rolls back."""
    commit, failed = connection.commit, []

    def commit_or_fail():
        if not failed and when():
            failed.append(True)
            raise DatabaseError("the connection was lost at the commit")
        commit()

    return mock.patch.object(connection, "commit", commit_or_fail)


def put_fails_once(name):
    """The next task whose name has that part cannot be stored."""
    put, failed = DjangoTaskStore.put, []

    def put_or_fail(self, records, forget=()):
        if not failed and any(name in (record.routing.name or "") for record in records):
            failed.append(True)
            raise DatabaseError("the connection was lost")
        put(self, records, forget)

    return mock.patch.object(DjangoTaskStore, "put", put_or_fail)


# --- defer ------------------------------------------------------------------------------------------------------------


def test_01_a_task_that_the_service_finds_too_large_is_stored_and_runs_and_leaves_no_row(queue):
    queue.refuse(TaskSizeRefusedError())
    defer(tasks.note, "x" * 1000)
    defer(tasks.note, os.urandom(300_000))
    process_task_queues()
    assert sorted(len(args[0]) for args, _ in tasks.ran) == [1000, 300_000]
    assert records() == records(State.SENT) == records(State.DEAD) == []


def test_11_a_task_whose_enqueuing_fails_after_the_commit_is_sent_by_the_sweep(queue):
    for error in (TransportUnavailableError(), AmbiguousSendError()):
        queue.refuse(error)
        with transaction.atomic():
            defer(tasks.note, "kept", _transactional=True)
        assert get_task_count() == 0
    with later(120):
        sweep()
    process_task_queues()
    assert tasks.ran == [(("kept",), {})] * 2


def test_12_built_ins_can_be_deferred():
    defer(print, "a built-in", end="")
    defer(int, "3")
    defer(str.upper, "a method of a built-in type")
    defer("a bound method of a built-in".upper)
    process_task_queues()
    assert records(State.DEAD) == []


def test_15_without_time_zones_in_tokyo_a_minute_is_a_minute():
    with override_settings(USE_TZ=False, TIME_ZONE="Asia/Tokyo"):
        in_a_minute = datetime.now() + timedelta(minutes=1)
        handles = [defer(tasks.note, _countdown=60), defer(tasks.note, _eta=in_a_minute)]
    for handle in handles:
        assert handle.eta.timestamp() == pytest.approx(datetime.now().timestamp() + 60, abs=20)


def test_16_relation_caches_are_left_behind_at_any_depth_and_stay_with_the_caller():
    author = Author.objects.create(name="Ada")
    book = Book.objects.create(title="Notes", author=author)
    book = Book.objects.select_related("author").prefetch_related("tags").get(pk=book.pk)
    assert book.author.name == "Ada"
    defer(tasks.note, {"nested": [book]})
    defer(book.retitle, "Notes, again")
    with mock.patch.object(Book, "retitle", lambda self, title: tasks.note(self)):
        process_task_queues()
    ((nested,), _), ((himself,), _) = tasks.ran
    for arrived in (nested["nested"][0], himself):
        assert arrived.title == "Notes"
        assert "author" not in arrived._state.fields_cache
        assert not getattr(arrived, "_prefetched_objects_cache", {})
    assert "author" in book._state.fields_cache
    assert "tags" in book._prefetched_objects_cache


def test_17_a_small_defer_costs_one_insert_at_most_and_nothing_once_it_is_sent(queue):
    send, before_sending = queue.send, []

    def note_and_send(message):
        before_sending.append(len(queries))
        return send(message)

    with CaptureQueriesContext(connection) as queries, mock.patch.object(queue, "send", note_and_send):
        for number in range(10):
            defer(tasks.note, number)
            assert len(queries) == before_sending[-1]
    told = [each["sql"].split()[0] for each in queries if each["sql"].split()[0] in ("INSERT", "DELETE", "UPDATE")]
    assert told.count("INSERT") == 10
    assert told.count("UPDATE") == 0
    with CaptureQueriesContext(connection) as queries:
        defer(tasks.note, "small", _small_task=True)
    assert [each["sql"] for each in queries] == []


def test_18_a_body_that_cannot_be_read_is_kept_and_not_retried():
    assert execute(b"\x80no pickle at all", Delivery(task_name="t", retry_count=0)) is Outcome.PERMANENT
    (letter,) = records(State.DEAD)
    assert letter.envelope == b"\x80no pickle at all"


def test_19_a_header_that_anybody_can_send_runs_and_unpickles_nothing():
    body = b"cos\nsystem\n(S'true'\ntR."
    request = RequestFactory().post(
        "/tasks/deferred/", body, content_type="application/octet-stream", HTTP_X_APPENGINE_TASKNAME="forged"
    )
    with mock.patch("pickle.loads") as loads, mock.patch("pickle.Unpickler") as unpickler:
        assert deferred_handler(request).status_code == 403
    assert not loads.called
    assert not unpickler.called


# --- iterations -------------------------------------------------------------------------------------------------------


def test_02_a_callback_that_changes_the_filtered_field_skips_no_row(monkeypatch):
    monkeypatch.setattr(queryset, "PAGE", 100)
    make_rows(2500)
    iterate(Row.objects.filter(done=False))
    process_task_queues()
    assert_complete(2500)


def test_03_a_shard_that_is_delivered_twice_does_not_finalize_early(queue):
    make_rows()
    iterate()
    run_one(queue.queued()[0], queue)  # the plan
    shards = queue.queued()
    for task in (shards[0], shards[0], shards[0], *shards[:-1]):
        execute(task.message.body, Delivery(task_name=task.name))
        assert tasks.finalized() == 0
    process_task_queues()
    process_task_queues()
    assert_complete()


def test_04_an_error_when_finalize_is_enqueued_after_the_commit_does_not_lose_it(queue):
    make_rows()
    queue.refuse(TransportUnavailableError(), when=lambda message: "finalize" in (message.routing.name or ""))
    iterate()
    process_task_queues()
    assert tasks.finalized() == 0
    with later(120):
        sweep()
    process_task_queues()
    assert_complete()


def test_05_an_error_at_the_last_commit_does_not_lose_finalize(queue):
    make_rows()
    iterate(_shards=2)
    with commit_fails_once(lambda: Iteration.objects.filter(state="finalizing").exists()):
        drain(queue, max_attempts=5)
    assert tasks.finalized() == 1
    assert set(tasks.rows()) == set(range(25))


def test_05_an_error_when_finalize_is_to_be_enqueued_leaves_the_shard_to_be_done_again(queue):
    make_rows()
    iterate(_shards=2)
    with put_fails_once("finalize"):
        drain(queue, max_attempts=5)
    assert tasks.finalized() == 1
    assert set(tasks.rows()) == set(range(25))


def test_06_an_error_at_the_commit_of_the_plan_leaves_no_count_too_high(queue):
    make_rows()
    iterate()
    with commit_fails_once(lambda: Shard.objects.exists()):
        drain(queue, max_attempts=5)
    assert_complete()


def test_06_an_error_when_the_shards_are_to_be_enqueued_leaves_no_count_too_high(queue):
    make_rows()
    iterate()
    with put_fails_once("-0-"):
        drain(queue, max_attempts=5)
    assert_complete()


def test_07_a_planner_that_is_killed_half_way_leaves_nothing_behind(queue):
    make_rows()
    iterate()
    with (
        mock.patch.object(DjangoIterationStore, "plan", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        run_one(queue.queued()[0], queue)
    assert not Shard.objects.exists()
    process_task_queues()
    assert_complete()


def test_08_a_planner_that_is_delivered_again_runs_nothing_twice(queue):
    make_rows()
    iterate()
    (plan,) = queue.queued()
    for _ in range(3):
        execute(plan.message.body, Delivery(task_name=plan.name))
    process_task_queues()
    execute(plan.message.body, Delivery(task_name=plan.name))
    process_task_queues()
    assert_complete()


def test_08_a_planner_that_is_overtaken_by_its_duplicate_writes_nothing(queue):
    """While the one is about to write its shards, the other does so entirely; both have seen a new iteration."""
    make_rows()
    iterate()
    (task,) = queue.queued()
    plan, nested = DjangoIterationStore.plan, []

    def plan_after_the_other(self, *args, **kwargs):
        if not nested:
            nested.append("begun")
            nested.append(execute(task.message.body, Delivery(task_name=task.name)))
        return plan(self, *args, **kwargs)

    with mock.patch.object(DjangoIterationStore, "plan", plan_after_the_other):
        assert execute(task.message.body, Delivery(task_name=task.name)) is Outcome.DONE
    assert nested == ["begun", Outcome.DONE]
    process_task_queues()
    assert_complete()


def test_09_a_poison_row_exhausts_no_queue_and_finalize_runs_once_it_is_mended(queue):
    make_rows()
    broken = [True] * 30

    def poison(row):
        if row.number == 13 and broken:
            broken.pop()
            raise ValueError("poison")

    tasks.before.append(poison)
    iterate()
    drain(queue, max_attempts=1)  # no task of it ever fails, so no queue gives up
    assert_complete()


def test_09_a_poison_row_can_be_set_aside(queue):
    make_rows()
    tasks.before.append(fail_on_thirteen)
    handle = iterate(_on_error="quarantine", _max_attempts=3)
    drain(queue, max_attempts=1)
    assert tasks.finalized() == 1
    assert set(range(25)) - set(tasks.rows()) == {13}
    assert [row.attempts for row in handle.progress().quarantined] == [3]


def fail_on_thirteen(row):
    if row.number == 13:
        raise ValueError("poison")


def test_10_resuming_a_shard_does_not_make_its_task_or_its_query_grow(queue):
    make_rows(20)
    given = set()

    def give_way(row):
        if row.number not in given:
            given.add(row.number)
            raise TimeoutException

    tasks.before.append(give_way)
    iterate(_shards=1)
    run_one(queue.queued()[0], queue)
    sizes, jobs = [], set()
    while not tasks.finalized():
        (task,) = queue.queued()
        sizes.append(len(task.message.body))
        jobs.update(bytes(each) for each in Iteration.objects.values_list("job", flat=True))
        run_one(task, queue)
    assert len(sizes) > 20
    assert max(sizes) - min(sizes) < 100
    assert len(jobs) == 1
    assert_complete(20)


def test_13_a_partial_is_a_callback_and_a_sliced_queryset_is_refused_at_the_call():
    make_rows(5)
    iterate(None, partial(tasks.done, touched="yes"))
    process_task_queues()
    assert_complete(5)
    with pytest.raises(TypeError, match="sliced"):
        iterate(Row.objects.all()[:3])
    assert get_task_count() == 0


def test_14_extra_positional_arguments_are_the_callbacks():
    make_rows(3)
    iterate(None, tasks.done, "default", 2, True, False, None, "extra", 7)
    process_task_queues()
    assert {each[2:] for each in tasks.ran if each[0] == "row"} == {("extra", 7)}
    tasks.reset()
    iterate(None, tasks.done, ["extra", 7])
    process_task_queues()
    assert tasks.ran[-1] == ("finalize", "extra", 7)


def test_20_sequential_ranges_do_not_overlap_and_an_empty_queryset_has_one():
    make_rows()
    keys = list(Row.objects.values_list("pk", flat=True))
    for shards in (1, 2, 3, 4, 5, 7, 24, 25, 40):
        ranges = processing.sequential_int_key_ranges(Row.objects.all(), shards)
        assert [sum(low <= key < high for low, high in ranges) for key in keys] == [1] * 25
    assert processing.sequential_int_key_ranges(Row.objects.none(), 5) == [(None, None)]
    iterate(key_ranges_getter=processing.sequential_int_key_ranges, _shards=4)
    iterate(Row.objects.filter(number=-1), key_ranges_getter=processing.sequential_int_key_ranges)
    process_task_queues()
    assert tasks.rows() == Counter(range(25))
    assert tasks.finalized() == 2


def test_21_firestore_ranges_have_no_gaps_and_a_falsy_start_is_a_bound():
    for getter in (
        processing.firestore_scattered_int_key_ranges,
        processing.firestore_name_key_ranges,
        processing.firebase_uid_key_ranges,
    ):
        assert all(first[1] == second[0] for first, second in pairwise(getter(None, 7)))
    Row.objects.bulk_create(Row(number=number) for number in range(-5, 10))
    iterate(key_ranges_getter=tasks.from_zero, order_field="number")
    process_task_queues()
    assert tasks.rows() == Counter(range(10))


def test_22_two_shards_that_end_at_once_are_both_counted(queue):
    """While the one is about to complete, the other does so entirely."""
    make_rows(2)
    iterate(_shards=2)
    run_one(queue.queued()[0], queue)
    first, second = queue.queued()
    complete, nested = DjangoIterationStore.complete, []

    def complete_after_the_other(self, *args, **kwargs):
        if not nested:
            nested.append("begun")
            nested.append(execute(second.message.body, Delivery(task_name=second.name)))
            assert not Iteration.objects.filter(state="finalizing").exists()
        return complete(self, *args, **kwargs)

    with mock.patch.object(DjangoIterationStore, "complete", complete_after_the_other):
        execute(first.message.body, Delivery(task_name=first.name))
    assert nested == ["begun", Outcome.DONE]
    process_task_queues()
    assert_complete(2)


def test_22_a_shard_that_ends_locks_the_iteration_before_all_else(queue):
    make_rows(2)
    iterate(_shards=1)
    run_one(queue.queued()[0], queue)
    (shard,) = queue.queued()
    with CaptureQueriesContext(connection) as queries:
        execute(shard.message.body, Delivery(task_name=shard.name))
    tables = [model._meta.db_table for model in (Iteration, Shard)]
    updated = [table for each in queries for table in tables if each["sql"].startswith(f'UPDATE "{table}"')]
    claimed, ends = updated[:2], updated[2:]
    assert claimed == [Shard._meta.db_table] * 2
    assert ends[0] == Iteration._meta.db_table
    assert set(ends[1:]) == set(tables)


def test_23_a_killed_shard_goes_on_from_its_last_checkpoint(queue):
    make_rows(20)
    now = [clock.now()]

    def four_seconds_a_row(row):
        now[0] += 4
        if row.number == 15 and not killed:
            killed.append(True)
            raise KeyboardInterrupt  # what a killed process looks like from inside

    killed = []
    tasks.before.append(four_seconds_a_row)
    with clock.replaced(lambda: now[0]):
        iterate(_shards=1)
        run_one(queue.queued()[0], queue)
        with pytest.raises(KeyboardInterrupt):
            run_one(queue.queued()[0], queue)
        process_task_queues()
    assert_complete(20)


def test_23_the_deadline_is_the_deliverys(queue):
    make_rows(20)
    now = [clock.now()]
    tasks.before.append(lambda row: now.__setitem__(0, now[0] + 4))
    with clock.replaced(lambda: now[0]):
        iterate(_shards=1, _dispatch_deadline=30)
        run_one(queue.queued()[0], queue)
        (shard,) = queue.queued()
        execute(shard.message.body, Delivery(task_name=shard.name))
        assert 3 <= sum(tasks.rows().values()) <= 7
        process_task_queues()
    assert_complete(20)


# --- environment, settings, tests -------------------------------------------------------------------------------------


def note_environment():
    tasks.ran.append((task_environment.task_queue_name(), task_environment.task_execution_count()))


def test_24_the_queue_has_a_default_and_the_counts_are_numbers(monkeypatch):
    monkeypatch.setenv("GAE_ENV", "standard")
    defer(note_environment)
    process_task_queues()
    assert tasks.ran == [("default", 0)]
    with task_environment.of_request({"HTTP_X_APPENGINE_TASKNAME": "t", "HTTP_X_APPENGINE_TASKEXECUTIONCOUNT": "3"}):
        assert task_environment.task_queue_name() == "default"
        assert task_environment.task_execution_count() == 3


def test_25_a_missing_setting_is_named():
    with override_settings(), pytest.raises(ImproperlyConfigured, match="CLOUD_TASKS_LOCATION is not set"):
        cloud_tasks_location()


def test_25_starting_needs_no_network(tmp_path):
    code = (
        "import socket\n"
        "def refuse(*args, **kwargs): raise AssertionError('a network call at start-up')\n"
        "socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse\n"
        "from django.conf import settings\n"
        "settings.configure(SECRET_KEY='k' * 60,"
        " INSTALLED_APPS=['django.contrib.contenttypes', 'djangae', 'djangae.tasks'],"
        " CLOUD_TASKS_LOCATION='europe-west1', CLOUD_TASKS_QUEUES=[{'name': 'default'}], GOOGLE_CLOUD_PROJECT='p')\n"
        "import django; django.setup()\n"
        "import sys; assert 'grpc' not in sys.modules; print('started')\n"
    )
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DJANGO_", "DEFER_"))}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path, env=kept
    )
    assert done.stdout.strip() == "started", done.stderr


def test_26_the_test_helper_raises_with_the_original_exception():
    defer(tasks.fail)
    with pytest.raises(TaskFailedError) as caught:
        process_task_queues()
    assert isinstance(caught.value.original_exception, ValueError)
    assert caught.value.__cause__ is caught.value.original_exception
    assert "the original" in str(caught.value)


def test_no_option_is_taken_silently():
    with pytest.raises(OptionError, match="_shard"):
        iterate(_shard=3)
