"""The statistics by the minute: what is counted, when it is written, what a database may do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from testapp import tasks

from defer_core import defer
from defer_core.spi import Attempt, Delivery, Ending, clock, sweep
from defer_core.testing import drain, in_memory
from defer_django import statistics
from defer_django.models import Minute
from defer_django.statistics import Counts

NOW = 1_800_000_000.0  # a whole minute
MAIL = Delivery(queue="mail", started=NOW)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _nothing_counted() -> Iterator[None]:
    statistics._waiting.clear()
    yield
    statistics._waiting.clear()


@pytest.fixture
def at() -> Iterator[Any]:
    """Sets the clock."""
    now = [NOW]
    with clock.replaced(lambda: now[0]):
        yield lambda seconds: now.__setitem__(0, NOW + seconds)


def count(*endings: Ending, delivery: Delivery = MAIL) -> None:
    for ending in endings:
        statistics.count(Attempt(delivery=delivery, ending=ending))


def rows() -> list[tuple[float, str, int, int]]:
    return sorted((row.minute, row.queue, row.done, row.failed) for row in Minute.objects.all())


def test_a_minute_of_a_queue_is_a_row_to_which_every_process_adds(at: Any) -> None:
    count(Ending.DONE, Ending.DONE, Ending.FAILED, Ending.DEAD, Ending.RETRY)
    count(Ending.DONE, delivery=Delivery(queue="default"))
    assert statistics.write() == 0
    count(Ending.DONE)
    at(61)
    count(Ending.FAILED)
    statistics.write()
    assert rows() == [(NOW, "default", 1, 0), (NOW, "mail", 3, 2), (NOW + 60, "mail", 0, 1)]
    assert statistics.by_queue("default") == {"default": Counts(1, 0), "mail": Counts(3, 3)}


@pytest.mark.on_sql
def test_a_task_costs_no_write_and_a_known_minute_one_statement(at: Any) -> None:
    count(Ending.DONE)
    statistics.write()
    with CaptureQueriesContext(connection) as queries:
        count(Ending.DONE, Ending.FAILED)
        assert len(queries) == 0
        statistics.write()
        statistics.write()
    assert [each["sql"].split()[0] for each in queries if each["sql"].split()[0] not in ("BEGIN", "COMMIT")] == [
        "UPDATE"
    ]


def test_attempts_of_tasks_are_counted_and_the_sweep_writes_them(calls: list[Any]) -> None:
    with in_memory(store="django"):
        defer(tasks.record, 1)
        defer(tasks.fail, "value", _queue="mail")
        with pytest.raises(ValueError, match="value"):
            drain()
        report = sweep()
    assert report.counts["statistics"] == 0 and "statistics" not in str(report)
    assert {queue: (done > 0, failed > 0) for _, queue, done, failed in rows()} == {
        "default": (True, False),
        "mail": (False, True),
    }


def test_what_asks_to_be_repeated_is_not_counted(at: Any) -> None:
    count(Ending.RETRY)
    statistics.write()
    assert rows() == []


def test_a_day_is_kept(at: Any) -> None:
    count(Ending.DONE)
    statistics.write()
    at(statistics.KEPT + 60)
    count(Ending.DONE)
    statistics.write()
    assert [minute for minute, *_ in rows()] == [NOW + statistics.KEPT + 60]


def test_only_the_last_hour_is_summed(at: Any) -> None:
    count(Ending.DONE)
    statistics.write()
    at(2 * 3600.0)
    count(Ending.FAILED)
    statistics.write()
    assert statistics.by_queue("default") == {"mail": Counts(0, 1)}
    assert statistics.by_queue("default", 3 * 3600.0) == {"mail": Counts(1, 1)}


def test_an_error_of_the_database_is_no_failure_of_the_sweep_and_nothing_is_lost(
    at: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    count(Ending.DONE)
    count(Ending.DONE, delivery=Delivery(queue="a"))

    add = statistics._add

    def refuse(alias: str, key: statistics.Key, counts: Counts) -> None:
        if key[1] == "mail":
            raise OperationalError("the disk\nis full")
        add(alias, key, counts)

    with monkeypatch.context() as patched:
        patched.setattr(statistics, "_add", refuse)
        assert sweep().counts["failed"] == 0
    assert "could not be written" in caplog.text and "the disk\nis full" not in caplog.text
    count(Ending.FAILED)
    statistics.write()
    assert rows() == [(NOW, "a", 1, 0), (NOW, "mail", 1, 1)]


@pytest.mark.on_sql
def test_two_processes_may_begin_a_minute_at_once(at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = statistics._row

    def later(key: statistics.Key, counts: Counts) -> Minute:
        made(key, Counts(done=5)).save(force_insert=True)
        return made(key, counts)

    monkeypatch.setattr(statistics, "_row", later)
    count(Ending.DONE)
    statistics.write()
    assert rows() == [(NOW, "mail", 6, 0)]


def test_what_waits_is_bounded(at: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "MOST", 1)
    count(Ending.DONE)
    count(Ending.DONE, delivery=Delivery(queue="other"))
    count(Ending.DONE)
    statistics.write()
    assert rows() == [(NOW, "mail", 2, 0)]
