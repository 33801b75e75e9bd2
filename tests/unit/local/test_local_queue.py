"""The durable queue and its transport."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from defer_core.errors import ConfigError, TaskAlreadyExistsError, TransportUnavailableError
from defer_core.spi import Message, RetryOptions, Routing, clock
from defer_local import DurableQueue, LocalTransport
from defer_local.queued import QueuedTask, Settled
from defer_local.retry import failed, interrupted

NOW = 1_700_000_000.0


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[DurableQueue]:
    queue = DurableQueue(tmp_path / "folder" / "queue.sqlite3")
    with clock.replaced(lambda: NOW):
        yield queue
    queue.close()


@pytest.fixture
def transport(tmp_path: Path) -> Iterator[LocalTransport]:
    transport = LocalTransport(file=tmp_path / "queue.sqlite3")
    yield transport
    transport.close()


def a_task(name: str = "t", **fields: Any) -> QueuedTask:
    return QueuedTask(**({"queue": "default", "name": name, "eta": NOW, "due": NOW, "created": NOW} | fields))


def lease(queue: DurableQueue, owner: str = "me", limit: int = 10, now: float = NOW) -> list[QueuedTask]:
    return queue.turn(owner, [], limit=limit, now=now)


def test_nothing_is_made_before_it_is_used(tmp_path: Path) -> None:
    LocalTransport(file=tmp_path / "folder" / "queue.sqlite3")
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_closed_to_others(queue: DurableQueue) -> None:
    queue.add([a_task()])
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in queue.file.path.parent.iterdir()}
    assert modes and set(modes.values()) == {0o600}
    assert stat.S_IMODE(queue.file.path.parent.stat().st_mode) == 0o700


def test_a_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/queue\.sqlite3"):
        DurableQueue(tmp_path / "file" / "queue.sqlite3").secret()


def test_the_file_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEFER_LOCAL_FILE", str(tmp_path / "there"))
    assert LocalTransport().queue.file.path == tmp_path / "there"
    monkeypatch.delenv("DEFER_LOCAL_FILE")
    monkeypatch.chdir(tmp_path)
    assert LocalTransport().queue.file.path == tmp_path / ".defer" / "queue.sqlite3"


def test_all_that_share_a_file_share_its_secret(tmp_path: Path, transport: LocalTransport) -> None:
    other = LocalTransport(file=tmp_path / "queue.sqlite3")
    assert transport.secret == other.secret
    assert len(transport.secret) >= 32
    other.close()


def test_a_task_is_kept_as_it_was_sent(transport: LocalTransport) -> None:
    routing = Routing(queue="mail", name="n", eta=NOW, url="/x", headers={"A": "é"}, retry=RetryOptions(max_attempts=3))
    assert transport.send(Message(body=b"\x00\xff", routing=routing)) == "n"
    [task] = transport.queue.tasks("mail")
    assert (task.body, task.routing, task.eta, task.due) == (b"\x00\xff", routing, NOW, NOW)


def test_tasks_without_a_name_get_one(transport: LocalTransport) -> None:
    names = [transport.send(Message(body=b"")) for _ in range(3)]
    assert len(set(names)) == 3 and all(name.isdigit() for name in names)


def test_a_name_is_refused_while_its_task_is_there_and_for_a_day_after(queue: DurableQueue) -> None:
    assert queue.add([a_task(), a_task(), a_task(queue="other")]) == [True, False, True]
    [task] = [each for each in lease(queue) if each.queue == "default"]
    queue.turn("me", [Settled(task=task, after=None)], limit=0, now=NOW)
    assert queue.tasks("default") == []
    assert queue.add([a_task()]) == [False]
    with clock.replaced(lambda: NOW + 86399):
        assert queue.add([a_task()]) == [False]
    with clock.replaced(lambda: NOW + 86401):
        assert queue.add([a_task()]) == [True]


def test_names_are_forgotten_once_they_are_free(queue: DurableQueue) -> None:
    def kept() -> int:
        return int(queue.file.connection().execute("SELECT count(*) FROM names").fetchone()[0])

    queue.add([a_task()])
    [task] = lease(queue)
    queue.turn("me", [Settled(task=task, after=None)], limit=0, now=NOW)
    for later, left in ((86_399, 1), (86_400, 0)):
        with clock.replaced(lambda later=later: NOW + later):
            queue.beat("me", "host", 1, NOW + later + 20)
        assert kept() == left


def test_a_taken_name_is_an_error_of_its_own_and_spoils_no_bulk(transport: LocalTransport) -> None:
    messages = [Message(body=b"", routing=Routing(name=name)) for name in ("a", "b", "a")]
    first, second, third = transport.send_many(messages)
    assert (first, second) == ("a", "b")
    assert isinstance(third, TaskAlreadyExistsError)
    with pytest.raises(TaskAlreadyExistsError, match="'a'"):
        transport.send(messages[0])


def test_a_queue_that_cannot_be_written_is_unavailable(transport: LocalTransport) -> None:
    transport.send(Message(body=b""))
    transport.queue.file.connection().execute("PRAGMA query_only = ON")
    with pytest.raises(TransportUnavailableError, match="added nothing"):
        transport.send(Message(body=b""))


def test_tasks_are_leased_once_due_first(queue: DurableQueue) -> None:
    queue.add([a_task("late", due=NOW - 1), a_task("early", due=NOW - 2), a_task("to come", due=NOW + 1)])
    assert [task.name for task in lease(queue, limit=1)] == ["early"]
    assert [task.name for task in lease(queue, "other")] == ["late"]
    assert not queue.has_due(NOW)
    assert [task.name for task in lease(queue, now=NOW + 1)] == ["to come"]


def test_an_attempt_is_counted_when_it_begins(queue: DurableQueue) -> None:
    queue.add([a_task()])
    [task] = lease(queue)
    assert (task.attempts, task.first_attempt, task.last_attempt) == (1, NOW, NOW)
    assert queue.tasks() == [task]


def test_a_failed_task_waits_for_its_time(queue: DurableQueue) -> None:
    queue.add([a_task()])
    [task] = lease(queue)
    assert queue.turn("me", [Settled(task=task, after=failed(task, 500, NOW))], limit=5, now=NOW) == []
    [again] = lease(queue, now=NOW + 0.1)
    assert (again.attempts, again.previous_response) == (2, 500)


def test_an_attempt_that_lost_its_task_settles_nothing(queue: DurableQueue) -> None:
    queue.add([a_task()])
    [stale] = lease(queue, "one")
    queue.take_back(["one"], lambda task: interrupted(task, NOW))
    [fresh] = lease(queue, "two")
    queue.turn("one", [Settled(task=stale, after=None)], limit=0, now=NOW)
    assert queue.tasks() == [fresh]


def test_a_dispatcher_that_took_over_from_itself_is_not_confused(queue: DurableQueue) -> None:
    queue.add([a_task()])
    [stale] = lease(queue, "one")
    queue.take_back(["one"], lambda task: interrupted(task, NOW))
    [fresh] = lease(queue, "one")
    queue.turn("one", [Settled(task=stale, after=None)], limit=0, now=NOW)
    assert queue.tasks() == [fresh]


def test_a_paused_queue_is_left_alone_unless_a_task_is_forced(queue: DurableQueue) -> None:
    queue.add([a_task("a"), a_task("b", forced=True), a_task("c", queue="other")])
    with queue.file.writing() as connection:
        connection.execute("INSERT INTO queues (name, state, proto) VALUES ('default', 'PAUSED', '')")
    assert sorted(task.name for task in lease(queue)) == ["b", "c"]


def test_idle_is_when_only_tasks_to_come_are_left(queue: DurableQueue) -> None:
    assert queue.is_idle(NOW)
    queue.add([a_task(eta=NOW + 9, due=NOW + 9)])
    assert queue.is_idle(NOW) and not queue.is_idle(NOW + 9)
    [task] = lease(queue, now=NOW + 9)
    assert not queue.is_idle(NOW)
    after = replace(task, due=NOW + 99, owner=None)
    queue.turn("me", [Settled(task=task, after=after)], limit=0, now=NOW + 9)
    assert not queue.is_idle(NOW + 9), "a task that waits to be repeated"
