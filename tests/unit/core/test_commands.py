"""The commands: they list, show, re-run and drop dead letters, and sweep."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from defer_core import Delivery, Outcome, PermanentTaskFailure, clock, config, defer, execute
from defer_core.__main__ import main
from defer_core.commands.snapshot import counted
from defer_core.commands.sweep import _left
from defer_core.config import active
from defer_core.record import State, TaskRecord
from defer_core.task import Routing
from defer_core.testing import MemoryStore, MemoryTransport, drain, in_memory
from defer_core.upkeep import dead_letters

fails = True
calls: list[Any] = []


def flaky(*args: Any) -> None:
    calls.append(args)
    if fails:
        raise PermanentTaskFailure("not yet")


@pytest.fixture
def store() -> MemoryStore:
    global fails
    fails = True
    calls.clear()
    return MemoryStore()


@pytest.fixture
def queue(store: MemoryStore) -> Iterator[MemoryTransport]:
    with in_memory(store=store) as transport:
        yield transport


def a_dead_letter(store: MemoryStore, *args: Any) -> str:
    defer(flaky, *args, _queue="mail")
    drain()
    return store.list(State.DEAD)[-1].id


def mend() -> None:
    global fails
    fails = False


def test_one_letter_that_does_not_verify_does_not_hold_up_the_others(
    store: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    with in_memory(store=store, keys=["key"]) as queue:
        for number in range(6):
            a_dead_letter(store, number)
        letter_ids = {letter.id for letter in store.list(State.DEAD)}
        assert execute(b"no task", Delivery(retry_count=0, started=0)) is Outcome.PERMANENT
        assert main(["dead", "rerun", "all"]) == 1
        told = capsys.readouterr()
        assert {line.partition(":")[0] for line in told.out.splitlines()} == letter_ids and len(queue.queued()) == 6
        assert store.list(State.DEAD)[0].id in told.err and "not an envelope" in told.err


def test_the_list_is_read_by_the_page_and_one_letter_alone(
    queue: MemoryTransport, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter_id, reads = a_dead_letter(store), []
    monkeypatch.setattr(store, "get", lambda *args: reads.append("get"))
    assert main(["dead", "list"]) == 0 and reads == []
    monkeypatch.undo()
    monkeypatch.setattr(store, "list", lambda *args, **kwargs: reads.append("list"))
    assert main(["dead", "show", letter_id]) == 0 and reads == []


def test_the_commands(queue: MemoryTransport, store: MemoryStore, capsys: pytest.CaptureFixture[str]) -> None:
    letter_id = a_dead_letter(store)
    assert main(["dead", "list"]) == 0
    line = capsys.readouterr().out
    assert main(["dead"]) == 0
    assert capsys.readouterr().out == line
    assert letter_id in line and "permanent" in line and "mail" in line and "PermanentTaskFailure: not yet" in line
    assert main(["dead", "show", letter_id]) == 0
    assert "Traceback" in capsys.readouterr().out
    assert main(["sweep"]) == 0
    assert "dead 1" in capsys.readouterr().out
    mend()
    assert main(["dead", "rerun", "all"]) == 0
    drain()
    assert calls == [(), ()]
    assert main(["dead", "drop", letter_id]) == 1
    assert letter_id in capsys.readouterr().err
    assert main(["dead", "drop"]) == 1


def put(store: MemoryStore, record_id: str, name: str = "", state: State = State.DEAD) -> None:
    store.put(
        [TaskRecord(id=record_id, envelope=b"", routing=Routing(name=name or None), state=state, last_error="why")]
    )


def test_a_letter_is_found_by_what_the_log_and_the_status_have_of_it(
    queue: MemoryTransport, store: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    for record_id, name in (("ab12", "its-name"), ("ab34", "twice"), ("ff", "twice"), ("ff56", "")):
        put(store, record_id, name)
    for given, found in (("its-name", "ab12"), ("ab3", "ab34"), ("ff", "ff")):
        assert main(["dead", "show", given]) == 0
        assert capsys.readouterr().out.startswith(f"{found}  ")
    for given, said in (("ab", "ab12, ab34"), ("twice", "ab34, ff"), ("its", "no dead letter its")):
        assert main(["dead", "drop", given]) == 1
        assert said in capsys.readouterr().err
    assert main(["dead", "drop", "its-name", "ff5"]) == 0
    assert [each.id for each in store.list(State.DEAD)] == ["ab34", "ff"]


def test_a_failing_task_is_shown_and_is_no_dead_letter(
    queue: MemoryTransport, store: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    put(store, "ab12", "its-name", State.FAILING)
    for given in ("ab12", "ab", "its-name"):
        assert main(["dead", "show", given]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith("ab12  -  failing  default  its-name  why\n") and shown.endswith("\nwhy\n")
        assert main(["dead", "drop", given]) == main(["dead", "rerun", given]) == 1
    capsys.readouterr()
    assert main(["dead", "list"]) == main(["dead", "show", "all"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["dead", "drop", "ab12"]) == 1
    assert "no dead letter ab12: the task is failing." in capsys.readouterr().err


class DownStore(MemoryStore):
    def lease_due(self, **given: Any) -> Any:
        raise ConnectionError("refused")

    def oldest_pending(self) -> float | None:
        raise ConnectionError("refused")


def test_a_store_that_is_down_is_a_line_and_the_exit_status(
    store: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    with in_memory(store=DownStore(alias="a"), joins=(store,)):
        assert main(["sweep"]) == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  memory a: ConnectionError('refused')",
        "  memory: late 0, failing 0, dead 0",
    ]


class LockedStore(MemoryStore):
    def list(self, *args: Any, **kwargs: Any) -> Any:
        raise sqlite3.OperationalError("database is locked")

    get = list


@pytest.mark.parametrize("asked", [["list"], ["show", "all"], ["show", "ab12"], ["drop", "all"]], ids=str)
def test_a_store_that_is_locked_is_a_line(
    store: MemoryStore, capsys: pytest.CaptureFixture[str], asked: list[str]
) -> None:
    put(store, "ab12")
    with in_memory(store=LockedStore(alias="a"), joins=(store,)):
        assert main(["dead", *asked]) == 1
    told = capsys.readouterr()
    assert told.err == "The store memory a cannot be asked: OperationalError('database is locked')\n"
    assert bool(told.out) is (asked != ["show", "ab12"])  # the other store is asked all the same


def test_late_records_have_the_age_of_the_oldest(store: MemoryStore, capsys: pytest.CaptureFixture[str]) -> None:
    with clock.replaced(lambda: 1000.0), in_memory(store=store):
        store.put([TaskRecord(id="1", envelope=b"", created=300.0, due=400.0)])
        assert "late 1 (the oldest for 700 s)" in _left(counted(store))


def test_a_letter_without_a_call_is_listed_by_its_task(
    queue: MemoryTransport, store: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    delivery = Delivery(task_name="the-task", queue="mail")
    dead_letters.keep_body(b"", delivery, None, config.current(), reason="missing payload", store=store)
    assert main(["dead", "list"]) == 0
    assert "missing payload  mail  the-task" in capsys.readouterr().out


@pytest.mark.defer_real
def test_the_commands_need_a_store(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(active, "_explicit", config.Config())
    assert main(["sweep"]) == 1
    assert "DEFER_STORE" in capsys.readouterr().err
