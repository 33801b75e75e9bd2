"""The test helpers: where the queue is, and what a failure says."""

import pickle

import pytest
from djangae.tasks.deferred import SingularTaskFailure, defer
from djangae.test import (
    AppEngineDiscoverRunner,
    TaskFailedBehaviour,
    TaskFailedError,
    assertNumTasksEquals,
    flush_task_queues,
    get_task_count,
    process_task_queues,
)
from django.test import override_settings
from testapp import tasks

from defer_core.config import active
from defer_core.errors import ConfigError
from defer_core.spi import current
from defer_core.testing import MemoryTransport, configured, in_memory

calls = []


def fail():
    calls.append("fail")
    raise ValueError("never")


def needs_the_other():
    """Fails until `the_other` has run."""
    calls.append("needs")
    if "other" not in calls:
        raise ValueError("the other has not run")


def the_other():
    calls.append("other")


def locked():
    raise SingularTaskFailure


@pytest.fixture(autouse=True)
def queue():
    calls.clear()
    with in_memory() as transport:
        yield transport


def test_counting_and_flushing_by_queue():
    defer(tasks.record, 1)
    defer(tasks.record, 2, _queue="slow")
    assert (get_task_count(), get_task_count("slow"), get_task_count("none")) == (2, 1, 0)
    assertNumTasksEquals(2)
    assertNumTasksEquals(1, queue_name="slow")
    with pytest.raises(AssertionError, match="1 tasks in slow, not 2"):
        assertNumTasksEquals(2, "slow")
    flush_task_queues("slow")
    assert (get_task_count(), get_task_count("slow")) == (1, 0)
    flush_task_queues()
    assert get_task_count() == 0


def test_only_the_queue_that_is_named_is_processed():
    defer(the_other, _queue="slow")
    defer(fail)
    process_task_queues("slow")
    assert calls == ["other"]
    assert get_task_count("default") == 1


def test_a_task_that_is_retried_lets_the_others_go_first():
    defer(needs_the_other)
    defer(the_other)
    process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK, max_task_retry_count=2)
    assert calls == ["needs", "other", "needs"]


def test_retrying_ends_after_the_count_with_the_exception():
    defer(fail)
    with pytest.raises(TaskFailedError) as caught:
        process_task_queues(failure_behaviour=TaskFailedBehaviour.RETRY_TASK, max_task_retry_count=4)
    assert calls == ["fail"] * 4
    assert isinstance(caught.value.original_exception, ValueError)
    assert caught.value.status_code == 500


def test_a_singular_failure_is_a_failure_unless_it_may_be_retried():
    defer(locked, _name="locked")
    with pytest.raises(TaskFailedError) as caught:
        process_task_queues()
    assert caught.value.status_code == 408
    assert caught.value.task_name


def test_an_error_of_a_failed_task_can_be_pickled():
    """Django's parallel runner sends it to another process."""
    again = pickle.loads(pickle.dumps(TaskFailedError("t", 500, ValueError("x"))))
    assert (again.task_name, again.status_code, str(again.original_exception)) == ("t", 500, "x")


def test_without_a_memory_queue_the_remedy_is_named():
    with configured(transport="immediate"), pytest.raises(ConfigError, match=r"djangae.test.TestCase"):
        process_task_queues()


def test_the_runner_queues_in_memory_for_the_whole_run(monkeypatch):
    from defer_core import config

    monkeypatch.setattr(active, "_explicit", None)
    runner = AppEngineDiscoverRunner(verbosity=0)
    monkeypatch.setattr("django.test.runner.setup_test_environment", lambda **kwargs: None)
    monkeypatch.setattr("django.test.runner.teardown_test_environment", lambda: None)
    with override_settings(DEFER={"TRANSPORT": "immediate", "INLINE_LIMIT": 5000}):
        config.forget()
        runner.setup_test_environment()
        try:
            assert isinstance(current().the_transport, MemoryTransport)
            assert current().inline_limit == 5000
        finally:
            runner.teardown_test_environment()
        assert current().transport == "immediate"
    config.forget()
