"""Which tasks are leased: limits, paused queues, tasks that are forced, and clocks that are set back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from defer_core.spi import clock
from defer_local import DurableQueue, leasing
from defer_local.queued import QueuedTask, Settled
from defer_local.retry import failed

NOW = 1_700_000_000.0
HOUR = 3600.0


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[DurableQueue]:
    queue = DurableQueue(tmp_path / "queue.sqlite3")
    with clock.replaced(lambda: NOW):
        yield queue
    queue.close()


def a_task(name: str, **fields: Any) -> QueuedTask:
    return QueuedTask(**({"queue": "default", "name": name, "eta": NOW, "due": NOW, "created": NOW} | fields))


def limit(queue: DurableQueue, name: str, **columns: Any) -> None:
    values = {"name": name, "state": "RUNNING", "proto": b""} | columns
    with queue.file.writing() as connection:
        query = f"INSERT INTO queues ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})"
        connection.execute(query, tuple(values.values()))


def lease(queue: DurableQueue, most: int = 100, now: float = NOW) -> list[str]:
    return [task.name for task in queue.turn("me", [], limit=most, now=now)]


def bucket(rate: float, burst: float, **columns: Any) -> dict[str, Any]:
    return {"rate": rate, "burst": burst, "tokens": burst, "refilled": NOW} | columns


def test_the_oldest_come_first_whatever_their_queue(queue: DurableQueue) -> None:
    queue.add([a_task(f"{number}", queue=f"queue {number % 3}", due=NOW - number) for number in range(12)])
    assert lease(queue, 5) == ["11", "10", "9", "8", "7"]
    assert lease(queue) == ["6", "5", "4", "3", "2", "1", "0"]


def test_no_more_run_than_the_queue_allows_over_all_dispatchers(queue: DurableQueue) -> None:
    limit(queue, "narrow", max_running=3)
    queue.add([a_task(f"{number}", queue="narrow") for number in range(9)])
    assert lease(queue, 2) == ["0", "1"]
    [third] = queue.turn("another", [], limit=9, now=NOW)
    assert lease(queue) == [] and not queue.has_due(NOW)
    queue.turn("another", [Settled(task=third, after=None)], limit=0, now=NOW)
    assert queue.has_due(NOW) and lease(queue) == ["3"]


def test_a_rate_is_held_and_filled_up_to_its_burst(queue: DurableQueue) -> None:
    limit(queue, "slow", **bucket(2.0, 3.0))
    queue.add([a_task(f"{number}", queue="slow") for number in range(20)])
    assert lease(queue) == ["0", "1", "2"]
    assert lease(queue, now=NOW + 0.4) == [] and not queue.has_due(NOW + 0.4)
    assert lease(queue, now=NOW + 0.5) == ["3"]
    assert lease(queue, now=NOW + 1.5) == ["4", "5"]
    assert lease(queue, now=NOW + HOUR) == ["6", "7", "8"]


def test_queues_without_room_are_passed_by(queue: DurableQueue) -> None:
    limit(queue, "empty", **bucket(1.0, 1.0, tokens=0.0))
    limit(queue, "full", max_running=0)
    limit(queue, "paused", state="PAUSED")
    for name in ("empty", "full", "paused"):
        queue.add([a_task(f"{name} {number}", queue=name, due=NOW - 9) for number in range(20)])
    assert not queue.has_due(NOW)
    queue.add([a_task("other", queue="other")])
    assert queue.has_due(NOW) and lease(queue, 2) == ["other"]


def test_a_forced_task_passes_every_limit_and_uses_none_up(queue: DurableQueue) -> None:
    limit(queue, "slow", **bucket(1.0, 1.0))
    limit(queue, "paused", state="PAUSED")
    forced = [a_task(f"forced {name}", queue=name, forced=True, due=NOW - 1) for name in ("slow", "paused")]
    queue.add([*forced, a_task("next", queue="slow"), a_task("last", queue="slow")])
    assert sorted(lease(queue)) == ["forced paused", "forced slow", "next"]


def test_a_look_reads_no_more_for_the_tasks_that_wait(queue: DurableQueue) -> None:
    """Counted in steps of SQLite's machine, so that no clock is asked."""
    limit(queue, "narrow", max_running=2)
    limit(queue, "slow", **bucket(1.0, 1.0, tokens=0.0))

    def steps() -> int:
        count = 0

        def one_more() -> None:
            nonlocal count
            count += 1

        connection = queue.file.connection()
        connection.set_progress_handler(one_more, 100)
        assert [row[1] for row in leasing.choose(connection, 8, NOW)]
        connection.set_progress_handler(None, 0)
        return count

    def fill(first: int, last: int) -> None:
        tasks = [(f"{number}", name) for number in range(first, last) for name in ("narrow", "slow", "plain")]
        queue.add([a_task(number, queue=name, due=NOW - 1) for number, name in tasks])

    fill(0, 20)
    few = steps()
    fill(20, 4000)
    assert steps() <= few + 10


# --- clocks that are set back -------------------------------------------------------------------------------------


def test_what_asks_for_no_time_waits_for_none(queue: DurableQueue) -> None:
    queue.add([a_task("plain"), a_task("past", eta=NOW - 5, due=NOW - 5), a_task("eta", eta=NOW + 9, due=NOW + 9)])
    queue.clock_set_back(NOW - HOUR)
    assert sorted(lease(queue, now=NOW - HOUR)) == ["past", "plain"]
    assert lease(queue, now=NOW + 8) == [] and lease(queue, now=NOW + 9) == ["eta"], "a time of day"


def test_a_pause_is_as_long_as_it_was_to_be(queue: DurableQueue) -> None:
    queue.add([a_task("t")])
    [task] = queue.turn("me", [], limit=1, now=NOW)
    after = failed(task, 500, NOW)
    assert after is not None
    pause = after.due - NOW
    queue.turn("me", [Settled(task=task, after=after)], limit=0, now=NOW)
    for _ in range(2):  # at each sign of life of a dispatcher, say
        queue.clock_set_back(NOW - HOUR)
    assert lease(queue, now=NOW - HOUR + pause - 0.01) == []
    assert lease(queue, now=NOW - HOUR + pause) == ["t"]


def test_what_began_to_wait_before_goes_on_waiting(queue: DurableQueue) -> None:
    queue.add([a_task("t")])
    [task] = queue.turn("me", [], limit=1, now=NOW)
    after = failed(task, 500, NOW)
    assert after is not None
    queue.turn("me", [Settled(task=task, after=after)], limit=0, now=NOW)
    queue.clock_set_back(NOW + 0.01)
    assert lease(queue, now=after.due - 0.01) == [] and lease(queue, now=after.due) == ["t"]


def test_a_rate_does_not_stand_still(queue: DurableQueue) -> None:
    limit(queue, "slow", **bucket(1.0, 1.0, tokens=0.0))
    queue.add([a_task("t", queue="slow", created=NOW - 2 * HOUR, eta=NOW - 2 * HOUR, due=NOW - 2 * HOUR)])
    queue.clock_set_back(NOW - HOUR)
    assert lease(queue, now=NOW - HOUR) == [] and lease(queue, now=NOW - HOUR + 1) == ["t"]
