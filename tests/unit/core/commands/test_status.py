"""The command `status`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from defer_core import clock, defer
from defer_core.__main__ import main
from defer_core.record import State, TaskRecord, new_id
from defer_core.testing import MemoryStore, in_memory

NOW = 1_800_000_000.0


@pytest.fixture(autouse=True)
def store() -> Iterator[MemoryStore]:
    store = MemoryStore()
    with clock.replaced(lambda: NOW), in_memory(store=store):
        yield store


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["status", *arguments]) == 0
    return capsys.readouterr().out


def test_it_shows_queues_stores_and_failing_tasks(store: MemoryStore, capsys: pytest.CaptureFixture[str]) -> None:
    defer(print, 1, _queue="mail", _small_task=True)
    failing = TaskRecord(
        id=new_id(), envelope=b"", state=State.FAILING, label="shop:ship", last_error="Traceback\nValueError: 4711"
    )
    store.put([failing, TaskRecord(id=new_id(), envelope=b"", created=NOW - 700)])
    said = run(capsys)
    assert said.startswith("2027-01-15T08:00:00+00:00  memory  not healthy\n") and "for 700 s" in said
    assert [line for line in said.splitlines() if line.endswith(":")] == ["queues:", "stores:", "failing tasks:"]
    assert failing.id[:8] in said and "ValueError: 4711" in said and "Traceback" not in said


def test_an_object_of_json_has_whole_ids(store: MemoryStore, capsys: pytest.CaptureFixture[str]) -> None:
    failing = TaskRecord(id=new_id(), envelope=b"", state=State.FAILING)
    store.put([failing])
    [line] = run(capsys, "--json").splitlines()
    assert json.loads(line)["failing"][0]["id"] == failing.id


def test_the_limit_can_be_given(store: MemoryStore, capsys: pytest.CaptureFixture[str]) -> None:
    store.put([TaskRecord(id=new_id(), envelope=b"", state=State.FAILING) for _ in range(3)])
    assert len(json.loads(run(capsys, "--json", "--limit", "2"))["failing"]) == 2


def test_watching_looks_again_until_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", wait)
    lines = run(capsys, "--watch", "0.5", "--json").splitlines()
    assert (len(lines), waits) == (3, [0.5] * 3)
    assert all(json.loads(line)["healthy"] for line in lines)
    waits.clear()
    run(capsys, "--watch")
    assert waits == [5.0] * 3


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "often"])
def test_nonsense_is_refused(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["status", f"--watch={seconds}"])
    assert "--watch" in capsys.readouterr().err
