"""A callback that raises: growing delay for ever, quarantine, or a visible failure; nothing is lost."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from testapp import iterations
from testapp.models import Row
from unit.iteration.deliveries import poison

from defer_core import execute
from defer_core.errors import OptionError, SingularTaskFailure
from defer_core.spi import Delivery, clock
from defer_core.testing import drain
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration import models
from defer_iteration.model.iteration import IterationState
from defer_iteration.protocol.timing import LONGEST_DELAY, delay

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


def test_a_row_that_raises_is_called_again_until_it_succeeds(queue: Any, rows: Any, caplog: Any) -> None:
    keys = rows(10)
    calls = poison(keys[4], 12)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1)
    result = drain(queue)
    assert result.retried == 0  # every delivery was answered 2xx
    assert len(calls) == 13
    assert iterations.times() == dict.fromkeys(keys, 1)
    assert iterations.finalized == [()]
    assert "ValueError: poison" in caplog.text


def test_the_delay_grows(queue: Any, rows: Any) -> None:
    keys = rows(3)
    poison(keys[1])
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1)
    waits = []
    with clock.replaced(lambda: 1_000_000.0):
        for _ in range(6):
            task = queue.queued()[0]
            queue.remove(task)
            execute(task.message.body, Delivery(task_name=task.name))
            waits.append(queue.queued()[0].due - 1_000_000.0)
    assert waits[1:] == [1, 2, 4, 8, 16]
    assert delay(100) == LONGEST_DELAY


def test_what_a_failed_call_counted_is_not_counted(queue: Any, rows: Any) -> None:
    from defer_iteration import current_shard

    keys = rows(5)

    def count_and_raise(row: Any) -> None:
        shard = current_shard()
        assert shard is not None
        shard.count("tried")
        if row.pk == keys[2] and iterations.times()[keys[2]] == 0 and not models.Shard.objects.get().attempts:
            raise ValueError

    iterations.before.append(count_and_raise)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1)
    drain(queue)
    assert iterations.counters == [{"tried": 5, "passed": 5}]


def test_what_a_quarantined_row_counted_is_not_counted(queue: Any, rows: Any) -> None:
    from defer_iteration import current_shard

    keys = rows(5)

    def count_and_raise(row: Any) -> None:
        shard = current_shard()
        assert shard is not None
        shard.count("tried")
        if row.pk == keys[2]:
            raise ValueError

    iterations.before.append(count_and_raise)
    walk(
        Row.objects.all(), iterations.callback, iterations.finalize, _shards=1, _on_error="quarantine", _max_attempts=1
    )
    drain(queue)
    assert iterations.counters == [{"tried": 4, "passed": 4}]


def test_quarantine_sets_the_row_aside_and_goes_on(queue: Any, rows: Any) -> None:
    keys = rows(10)
    calls = poison(keys[4])
    handle = walk(
        Row.objects.all(), iterations.callback, iterations.finalize, _shards=2, _on_error="quarantine", _max_attempts=3
    )
    drain(queue)
    assert len(calls) == 3
    assert sorted(iterations.seen) == [key for key in keys if key != keys[4]]
    assert iterations.finalized == [()]
    progress = handle.progress()  # the marker is kept while rows are quarantined
    assert progress.state is IterationState.DONE
    (row,) = progress.quarantined
    assert row.key == (keys[4],) and row.attempts == 3 and "ValueError: poison" in row.error


def test_fail_stops_the_iteration_visibly(queue: Any, rows: Any) -> None:
    keys = rows(10)
    calls = poison(keys[4])
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1, _on_error="fail")
    drain(queue)
    assert len(calls) == 5
    progress = handle.progress()
    assert progress.state is IterationState.FAILED and "ValueError: poison" in progress.reason
    assert progress.rows == 4
    assert iterations.finalized == []


def test_attempts_belong_to_one_row(queue: Any, rows: Any) -> None:
    """A row that is deleted after it has raised leaves no attempts to the next one."""
    keys = rows(4)
    calls = poison(keys[1], 2)
    second = poison(keys[2], 1)

    def delete(row: Any) -> None:
        if len(calls) == 2:
            Row.objects.filter(pk=keys[1]).delete()

    iterations.before.insert(0, delete)
    walk(
        Row.objects.all(), iterations.callback, iterations.finalize, _shards=1, _on_error="quarantine", _max_attempts=3
    )
    drain(queue)
    assert len(second) == 2
    assert keys[2] in iterations.seen


def test_a_singular_failure_is_no_error_in_the_log(queue: Any, rows: Any, caplog: Any) -> None:
    keys = rows(3)
    poison(keys[1], 1, SingularTaskFailure)
    with caplog.at_level(logging.ERROR):
        walk(Row.objects.all(), iterations.callback, iterations.finalize)
        drain(queue)
    assert sorted(iterations.seen) == keys
    assert caplog.records == []


def test_max_attempts_with_retry_is_refused_naming_both(queue: Any) -> None:
    with pytest.raises(OptionError, match=r"_max_attempts.*_on_error"):
        walk(Row.objects.all(), iterations.callback, iterations.finalize, _max_attempts=3)
