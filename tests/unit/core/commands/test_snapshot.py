"""What `status` shows: its shape, what is in it, and what it costs."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict
from unittest.mock import patch

import pytest

from defer_core import Delivery, clock, config, defer, execute
from defer_core.commands.snapshot import FailingRow, QueueRow, Snapshot, StoreRow, take
from defer_core.config import active
from defer_core.errors import ConfigError
from defer_core.record import State, TaskRecord, new_id
from defer_core.testing import MemoryStore, MemoryTransport, in_memory
from defer_core.transports.base import QueueState
from defer_core.upkeep.sections import register_section, sections

NOW = 1_800_000_000.0
DOCUMENT = Path(__file__).parents[4] / "docs/operations.md"


def ship(order: int, token: str) -> None:
    raise ValueError(f"order {order}\n\x1b[31mhas no lines")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture(autouse=True)
def queue(store: MemoryStore) -> Iterator[MemoryTransport]:
    """A queue at a fixed time, and no sections of other packages."""
    with clock.replaced(lambda: NOW), patch.dict(sections, clear=True), in_memory(store=store) as transport:
        yield transport


def snapshot(limit: int = 10) -> Any:
    """What is shown, after a way through JSON; its shape is the one that is written down."""
    found = json.loads(json.dumps(take(config.current(), limit)))
    assert_is(found, Snapshot)
    return found


def assert_is(value: Any, kind: Any, where: str = "") -> None:
    """Fail unless a value has a type, to its last key."""
    if is_typeddict(kind):
        hints = get_type_hints(kind)
        assert isinstance(value, dict) and value.keys() == hints.keys(), f"{where}: {value}"
        for name, each in hints.items():
            assert_is(value[name], each, f"{where}.{name}")
    elif kind is Any:
        assert value is None or type(value) in (str, int, float, bool), where
    elif get_origin(kind) is list:
        assert isinstance(value, list), where
        for each in value:
            assert_is(each, get_args(kind)[0], f"{where}[]")
    elif get_origin(kind) is dict:
        assert isinstance(value, dict) and all(isinstance(each, str) for each in value), where
        for each in value.values():
            assert_is(each, get_args(kind)[1], f"{where}{{}}")
    elif get_origin(kind) in (Union, types.UnionType):
        assert type(value) in get_args(kind), f"{where}: {value!r}"
    else:
        assert type(value) is kind, f"{where}: {value!r}"


def fail(*args: Any, attempt: int = 1, **options: Any) -> None:
    """Defer `ship`, and let an attempt at it fail."""
    defer(ship, *args, _small_task=True, **options)
    task = config.current().the_transport.queued()[-1]  # type: ignore[attr-defined]
    delivery = Delivery(task_name=f"t-{args[0]}", queue="mail", retry_count=attempt - 1, target="http")
    with pytest.raises(ValueError, match="has no lines"):
        execute(task.message.body, delivery)


def test_nothing_is_shown_where_nothing_is() -> None:
    found = snapshot()
    assert (found["healthy"], found["reasons"], found["transport"]) == (True, [], "memory")
    assert (found["queues"], found["failing"], found["sections"]) == ([], [], {})
    assert found["time"] == "2027-01-15T08:00:00+00:00"


def test_a_store_has_its_records_by_state(store: MemoryStore) -> None:
    states = [State.PENDING] * 3 + [State.SENT] * 2 + [State.FAILING, State.DEAD]
    store.put([TaskRecord(id=new_id(), envelope=b"", state=each, created=NOW - 700, due=NOW + 5) for each in states])
    store.put([TaskRecord(id=new_id(), envelope=b"", created=NOW - 12.34, due=NOW)])
    [row] = snapshot()["stores"]
    numbers = {"waiting": 4, "late": 1, "oldest": 700.0, "sent": 2, "failing": 1, "dead": 1}
    assert row == {"store": "memory", "alias": "", **numbers, "error": ""}
    assert snapshot()["healthy"] is False and "700 s" in snapshot()["reasons"][0]


def test_a_failing_task_is_shown_with_its_call_and_its_last_error() -> None:
    fail(4711, token="hunter2", attempt=3)
    [row] = snapshot()["failing"]
    assert (row["task"], row["queue"], row["attempts"]) == ("t-4711", "mail", 3)
    assert row["function"] == f"{__name__}:ship" and row["call"].endswith(".ship(order=4711, token=••••••)")
    assert row["error"] == r"\x1b[31mhas no lines" and row["last_attempt"] == "2027-01-15T08:00:00+00:00"


def test_only_a_few_failing_tasks_are_read(store: MemoryStore) -> None:
    for number in range(4):
        fail(number, token="x")
    listed = store.list
    with patch.object(store, "list", wraps=listed) as reads, patch.object(store, "get", None):
        assert len(snapshot(limit=3)["failing"]) == 3
        assert snapshot(limit=0)["failing"] == []
    assert [(each.args, each.kwargs) for each in reads.call_args_list] == [((State.FAILING,), {"limit": 3})]
    assert snapshot()["stores"][0]["failing"] == 4


def test_the_limit_is_of_all_stores_together(store: MemoryStore) -> None:
    other = MemoryStore(alias="other")
    for each in (store, other):
        each.put([TaskRecord(id=new_id(), envelope=b"", state=State.FAILING) for _ in range(2)])
    with in_memory(store=store, joins=(other,)):
        assert [row["alias"] for row in snapshot(limit=3)["failing"]] == ["", "", "other"]


def test_queues_have_their_tasks_and_declared_ones_are_shown_though_they_have_none(store: MemoryStore) -> None:
    with in_memory(store=store, queues=["default", "slow"]):
        defer(ship, 1, "x")
        defer(ship, 2, "x", _queue="mail", _countdown=60)
        rows = {row.pop("name"): row for row in snapshot()["queues"]}
    unknown = {"state": "", "running": None, "error": ""}
    assert rows["default"] == {**unknown, "tasks": 1, "due": 1}
    assert rows["mail"] == {**unknown, "tasks": 1, "due": 0}
    assert rows["slow"] == {**unknown, "tasks": None, "due": None}


class BrokenStore(MemoryStore):
    def count(self, *args: Any, **kwargs: Any) -> int:
        raise ConnectionError("refused\nby the server")

    list = count  # type: ignore[assignment]


def test_a_store_that_cannot_be_read_is_a_row_with_its_error(store: MemoryStore) -> None:
    with in_memory(store=BrokenStore(alias="a"), joins=(store,)):
        broken, other = snapshot()["stores"]
    assert broken["error"] == r"ConnectionError('refused\nby the server')" and broken["waiting"] is None
    assert (other["error"], other["waiting"]) == ("", 0)


def test_a_queue_that_cannot_be_read_is_a_row_with_its_error(queue: MemoryTransport) -> None:
    with patch.object(queue, "queue_states", side_effect=ConfigError("The file is no queue.")):
        [row] = snapshot()["queues"]
    assert (row["name"], row["state"], row["error"]) == ("memory", "unknown", "The file is no queue.")


def test_other_packages_add_sections() -> None:
    def walks(limit: int) -> Sequence[Mapping[str, Any]]:
        return [{"name": "a\nb", "rows": 7, "total": None}] * (limit + 1)

    def broken(limit: int) -> Sequence[Mapping[str, Any]]:
        raise ConnectionError("refused")

    register_section("walks", walks)
    register_section("broken", broken)
    assert snapshot(limit=2)["sections"] == {
        "walks": [{"name": r"a\nb", "rows": 7, "total": None}] * 2,
        "broken": [{"error": "ConnectionError('refused')"}],
    }


@pytest.mark.defer_real
def test_a_store_alone_has_no_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(active, "_explicit", config.Config(store="memory"))
    found = snapshot()
    assert (found["transport"], found["queues"], len(found["stores"])) == (None, [], 1)


def test_a_transport_need_not_know_its_queues() -> None:
    assert QueueState(name="mail") == QueueState(name="mail", state="", tasks=None, due=None, running=None, error="")


@pytest.mark.parametrize("kind", [Snapshot, QueueRow, StoreRow, FailingRow])
def test_every_key_is_documented(kind: Any) -> None:
    text = DOCUMENT.read_text()
    assert [name for name in get_type_hints(kind) if f"`{name}`" not in text] == []
