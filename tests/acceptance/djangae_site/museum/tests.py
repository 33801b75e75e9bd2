"""The museum's own tests, as Djangae's documentation tells sites to write them."""

from datetime import timedelta

from djangae.processing import sequential_int_key_ranges
from djangae.tasks import cloud_tasks_location, cloud_tasks_parent_path, cloud_tasks_project, cloud_tasks_queue_path
from djangae.tasks.decorators import task_only
from djangae.tasks.deferred import defer, defer_iteration_with_finalize
from djangae.tasks.environment import is_in_cron, is_in_task, task_name, task_queue_name, tasks_location
from djangae.test import TaskFailedBehaviour, TaskFailedError, TestCase, TransactionTestCase
from django.db import transaction
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import timezone

from museum import background
from museum.models import Artist, Note, Piece


class MuseumTestCase(TestCase):
    def setUp(self):
        super().setUp()
        background.calls.clear()

    def pieces(self, count=25, **fields):
        for number in range(count):
            Piece.objects.create(title=f"piece {number:03}", **fields)


class DeferTests(MuseumTestCase):
    def test_a_task_is_queued_and_run(self):
        defer(background.note, "hello")
        self.assertNumTasksEquals(1)
        self.assertEqual(0, Note.objects.count())
        self.process_task_queues()
        self.assertNumTasksEquals(0)
        self.assertEqual("hello", Note.objects.get().text)

    def test_queues_are_counted_and_flushed_by_name(self):
        defer(background.note, "fast")
        defer(background.note, "slow", _queue="slow")
        self.assertEqual(1, self.get_task_count("default"))
        self.assertEqual(1, self.get_task_count("slow"))
        self.assertEqual(2, self.get_task_count())
        self.process_task_queues("slow")
        self.assertEqual("slow", Note.objects.get().text)
        self.flush_task_queues("default")
        self.process_task_queues()
        self.assertEqual(1, Note.objects.count())

    def test_every_option(self):
        defer(
            background.note,
            "options",
            _queue="slow",
            _countdown=60,
            _name="only-once",
            _service="back",
            _version="v7",
            _instance="i1",
            _headers={"X-Museum": "yes"},
            _url="/tasks/deferred/",
            _transactional=False,
            _using="default",
            _wipe_related_caches=False,
            _retry_options=None,
        )
        defer(background.note, "eta", _eta=timezone.now() + timedelta(hours=1), _small_task=True)
        self.process_task_queues()
        self.assertEqual({"options", "eta"}, {each.text for each in Note.objects.all()})

    def test_a_large_task(self):
        text = "long " * 60_000
        defer(background.note, text)
        self.process_task_queues()
        self.assertEqual(text, Note.objects.get().text)

    def test_a_bound_method(self):
        piece = Piece.objects.create(title="before")
        defer(piece.rename, "after")
        self.process_task_queues()
        self.assertEqual("after", Piece.objects.get().title)

    def test_related_caches_do_not_travel_and_stay_with_the_caller(self):
        piece = Piece.objects.create(artist=Artist.objects.create(name="Ada"))
        self.assertEqual("Ada", piece.artist.name)
        defer(background.has_cached_artist, piece)
        self.process_task_queues()
        self.assertEqual([False], background.calls)
        self.assertIn("artist", piece._state.fields_cache)


class TransactionTests(MuseumTestCase):
    def test_a_rolled_back_task_never_runs(self):
        try:
            with transaction.atomic():
                defer(background.note, "rolled back", _transactional=True)
                raise ValueError
        except ValueError:
            pass
        self.process_task_queues()
        self.assertEqual(0, Note.objects.count())

    def test_a_committed_task_runs_after_the_commit(self):
        with transaction.atomic():
            defer(background.note, "committed", _transactional=True)
            self.process_task_queues()
            self.assertEqual(0, Note.objects.count())
        self.process_task_queues()
        self.assertEqual("committed", Note.objects.get().text)

    def test_a_large_committed_task_runs(self):
        with transaction.atomic():
            defer(background.note, "x" * 300_000, _transactional=True)
        self.process_task_queues()
        self.assertEqual(300_000, len(Note.objects.get().text))


class TransactionTestCaseTests(TransactionTestCase):
    def test_it_has_the_same_helpers(self):
        defer(background.note, "hello")
        self.assertNumTasksEquals(1, "default")
        self.process_task_queues("default")
        self.assertEqual(1, Note.objects.count())


class FailureTests(MuseumTestCase):
    def test_the_first_failure_is_raised_with_its_exception(self):
        defer(background.fail_always)
        with self.assertRaises(TaskFailedError) as caught:
            self.process_task_queues()
        self.assertIsInstance(caught.exception.original_exception, ValueError)
        self.assertEqual("never", str(caught.exception.original_exception))
        self.assertEqual(["called"], background.calls)

    def test_a_task_is_retried_when_asked(self):
        defer(background.fail_once)
        self.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
        self.assertEqual(["called"] * 2, background.calls)

    def test_retrying_ends(self):
        self.max_task_retry_count = 7
        defer(background.fail_always)
        with self.assertRaises(TaskFailedError):
            self.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
        self.assertEqual(7, len(background.calls))

    def test_failures_are_ignored_when_asked(self):
        defer(background.fail_always)
        defer(background.note, "the other")
        self.process_task_queues(failure_behaviour=TaskFailedBehaviour.DO_NOTHING)
        self.assertEqual(1, Note.objects.count())
        self.assertEqual(["called"], background.calls)

    def test_a_permanent_failure_is_no_error(self):
        defer(background.fail_for_good)
        self.process_task_queues()
        self.assertNumTasksEquals(0)
        self.assertEqual(["called"], background.calls)

    def test_a_singular_failure_is_retried(self):
        defer(background.fail_singularly)
        self.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
        self.assertEqual(["called"] * 2, background.calls)


class EnvironmentTests(MuseumTestCase):
    def test_a_task_knows_itself(self):
        defer(background.note_environment, _queue="slow", _name="named")
        self.process_task_queues()
        (seen,) = background.calls
        self.assertEqual((True, False, "slow"), (seen["in_task"], seen["in_cron"], seen["queue"]))
        self.assertEqual((0, 0), (seen["retries"], seen["executions"]))
        self.assertTrue(seen["name"])

    def test_nothing_lingers(self):
        defer(background.note_environment)
        self.process_task_queues()
        self.assertFalse(is_in_task())
        self.assertFalse(is_in_cron())
        self.assertIsNone(task_name())
        self.assertIsNone(task_queue_name())

    def test_views_for_tasks(self):
        self.assertEqual(403, self.client.get(reverse("nightly")).status_code)
        self.assertEqual(200, self.client.get(reverse("nightly"), HTTP_X_APPENGINE_TASKNAME="t").status_code)
        self.assertEqual(200, self.client.get(reverse("nightly"), HTTP_X_APPENGINE_CRON="true").status_code)
        self.assertEqual(403, self.client.get(reverse("report")).status_code)

    def test_csrf(self):
        client = Client(enforce_csrf_checks=True)
        self.assertEqual(403, client.post(reverse("hook")).status_code)
        self.assertEqual(200, client.post(reverse("hook"), HTTP_X_APPENGINE_TASKNAME="t").status_code)

    def test_a_decorated_view_refuses_outsiders(self):
        self.assertEqual(403, task_only(lambda request: None)(RequestFactory().get("/")).status_code)

    def test_warmup_is_internal(self):
        self.assertEqual(403, self.client.get("/_ah/warmup").status_code)
        self.assertEqual(200, self.client.get("/_ah/warmup", REMOTE_ADDR="0.1.0.3").status_code)

    def test_the_handler_runs_nothing_for_outsiders(self):
        response = self.client.post(reverse("tasks_deferred_handler"), b"", content_type="application/octet-stream")
        self.assertEqual(403, response.status_code)

    def test_paths(self):
        self.assertEqual("museum", cloud_tasks_project())
        self.assertEqual("europe-west1", cloud_tasks_location())
        self.assertEqual("projects/museum/locations/europe-west1", cloud_tasks_parent_path())
        self.assertEqual("projects/museum/locations/europe-west1/queues/slow", cloud_tasks_queue_path("slow"))
        self.assertEqual("us-west4", tasks_location("zwn~museum"))


class IterationTests(MuseumTestCase):
    def assertAllDone(self, count=25):
        pieces = list(Piece.objects.all())
        self.assertEqual([1] * count, [each.checks for each in pieces])
        self.assertTrue(all(each.checked and each.closed for each in pieces))
        self.assertEqual(["finalized"], background.calls)

    def test_every_instance_is_passed_and_then_it_is_finalized(self):
        self.pieces()
        defer_iteration_with_finalize(Piece.objects.all(), background.check, background.close_all)
        self.process_task_queues()
        self.assertAllDone()
        self.assertTrue({each.shard for each in Piece.objects.all()} <= set(range(5)))

    def test_keyword_arguments_reach_both(self):
        self.pieces(5)
        defer_iteration_with_finalize(Piece.objects.all(), background.check, background.close_all, checked=False)
        self.process_task_queues()
        self.assertEqual(0, Piece.objects.filter(checked=True).count())

    def test_the_keywords_of_djangae_2(self):
        self.pieces()
        defer_iteration_with_finalize(
            Piece.objects.all(),
            background.check,
            background.close_all,
            key_ranges_getter=sequential_int_key_ranges,
            order_field="pk",
            _queue="slow",
            _service="default",
            _version=None,
            _shards=4,
            _delete_marker=True,
            _transactional=False,
        )
        self.assertNumTasksEquals(1, "slow")
        self.process_task_queues("slow")
        self.assertAllDone()

    def test_the_buffer_time_of_djangae_1(self):
        self.pieces()
        defer_iteration_with_finalize(
            Piece.objects.all(), background.check, background.close_all, _shards=3, _buffer_time=30
        )
        self.process_task_queues()
        self.assertAllDone()

    def test_the_positional_order_of_djangae_1(self):
        self.pieces(10)
        defer_iteration_with_finalize(
            Piece.objects.all(), background.check_with, background.close_with, "slow", 3, True, False, None, "<", ">"
        )
        self.assertNumTasksEquals(1, "slow")
        self.process_task_queues()
        self.assertEqual({f"<{each.pk}>" for each in Piece.objects.all()}, {each.title for each in Piece.objects.all()})
        self.assertEqual([("<", ">")], background.calls)

    def test_the_positional_order_of_djangae_2(self):
        self.pieces(10)
        defer_iteration_with_finalize(
            Piece.objects.all(), background.check_with, background.close_with,
            sequential_int_key_ranges, "pk", "slow", "default", None, 3, True, False, "<", ">",
        )  # fmt: skip
        self.assertNumTasksEquals(1, "slow")
        self.process_task_queues()
        self.assertEqual([("<", ">")], background.calls)

    def test_the_args_of_ours(self):
        self.pieces(10)
        defer_iteration_with_finalize(Piece.objects.all(), background.check_with, background.close_with, ["<", ">"])
        self.process_task_queues()
        self.assertEqual([("<", ">")], background.calls)

    def test_another_order(self):
        self.pieces()
        defer_iteration_with_finalize(
            Piece.objects.all(), background.check, background.close_all, order_field="title", _shards=2
        )
        self.process_task_queues()
        self.assertAllDone()

    def test_a_filter_that_the_callback_changes(self):
        self.pieces()
        defer_iteration_with_finalize(Piece.objects.filter(checked=False), background.check, background.close_all)
        self.process_task_queues()
        self.assertAllDone()

    def test_no_rows_finalize_too(self):
        defer_iteration_with_finalize(Piece.objects.all(), background.check, background.close_all)
        self.process_task_queues()
        self.assertEqual(["finalized"], background.calls)

    def test_an_iteration_in_a_transaction_that_rolls_back(self):
        self.pieces(3)
        try:
            with transaction.atomic():
                defer_iteration_with_finalize(
                    Piece.objects.all(), background.check, background.close_all, _transactional=True
                )
                raise ValueError
        except ValueError:
            pass
        self.process_task_queues()
        self.assertEqual([], background.calls)

    def test_a_sporadic_error_is_tried_again(self):
        self.pieces(5)
        defer_iteration_with_finalize(Piece.objects.all(), background.check_after_two_failures, background.close_all)
        self.process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK)
        self.assertEqual([1] * 5, [each.checks for each in Piece.objects.all()])
        self.assertIn("finalized", background.calls)

    def test_a_callback_that_always_raises_surfaces(self):
        self.pieces(1)
        self.max_task_retry_count = 6
        defer_iteration_with_finalize(Piece.objects.all(), background.check_never, background.close_all)
        with self.assertRaises(TaskFailedError) as caught:
            self.process_task_queues()
        self.assertIsInstance(caught.exception.original_exception, ValueError)
        self.assertEqual(["called"] * 6, background.calls)

    def test_a_callback_gives_way(self):
        self.pieces(5)
        Piece.objects.create(title="last")
        defer_iteration_with_finalize(
            Piece.objects.all(), background.check_twenty_a_task, background.close_all, _shards=1
        )
        self.process_task_queues()
        self.assertEqual([1] * 6, [each.checks for each in Piece.objects.all()])
        self.assertEqual(["gave way", "finalized"], background.calls)
