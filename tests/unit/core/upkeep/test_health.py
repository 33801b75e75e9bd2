"""Whether the service is healthy: by what waits to be sent, by recent dead letters, and by whether that can be read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest

from defer_core import Config, Health, clock, health
from defer_core.__main__ import main
from defer_core.config import active
from defer_core.errors import ConfigError
from defer_core.record import State, TaskRecord, new_id
from defer_core.testing import MemoryStore, MemoryTransport, in_memory
from defer_core.transports.base import QueueState

NOW = 1_800_000_000.0
DAY = 86400.0
HEALTHY = Health()


@pytest.fixture(autouse=True)
def time() -> Iterator[None]:
    with clock.replaced(lambda: NOW):
        yield


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    store = MemoryStore()
    with in_memory(store=store):
        yield store


def waiting(seconds: float) -> TaskRecord:
    return TaskRecord(id=new_id(), envelope=b"", created=NOW - seconds, due=NOW)


def letter(seconds: float) -> TaskRecord:
    return TaskRecord(id=new_id(), envelope=b"", state=State.DEAD, last_attempt=NOW - seconds, label="shop:secret")


def test_an_empty_service_is_healthy(store: MemoryStore) -> None:
    found = health()
    assert (found, found.healthy, found.status) == (HEALTHY, True, 200)
    assert json.loads(found.to_json()) == {"healthy": True, "reasons": []}


def test_a_record_that_waits_too_long_is_a_reason(store: MemoryStore) -> None:
    store.put([waiting(600)])
    assert health() == HEALTHY
    store.put([waiting(601)])
    found = health()
    assert (found.healthy, found.status) == (False, 503)
    assert "memory has had a record to be sent for 601 s" in found.reasons[0]
    assert health(late=700) == HEALTHY


def queue_of(**state: Any) -> QueueState:
    return QueueState(name="projects/shop/queues/mail", tasks=3, due=2, **state)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (queue_of(state="undelivered", waits=601.0), "projects/shop/queues/mail has had a task that is due for 601 s"),
        (queue_of(state="undelivered", waits=600.0), ""),
        (queue_of(state="running", waits=9000.0), ""),  # it has more than it may run at a time
        (queue_of(state="paused", waits=9000.0), ""),
        (QueueState(name="mail"), ""),
    ],
)
def test_a_queue_that_nobody_delivers_is_a_reason(store: MemoryStore, state: QueueState, told: str) -> None:
    with patch.object(MemoryTransport, "queue_states", return_value=[state]):
        assert told in "\n".join(health().reasons) and health().healthy == (not told)
        assert health(late=9999) == HEALTHY


def test_queues_that_cannot_be_asked_are_a_reason(store: MemoryStore) -> None:
    with patch.object(MemoryTransport, "queue_states", side_effect=ConfigError("The file /secret is no queue.")):
        assert health().reasons == ("The queues cannot be asked: ConfigError.",)


def test_what_the_queue_has_does_not_wait(store: MemoryStore) -> None:
    for state in (State.SENT, State.FAILING):
        store.put([TaskRecord(id=new_id(), envelope=b"", state=state, created=0.0)])
    assert health() == HEALTHY


def test_a_recent_dead_letter_is_a_reason(store: MemoryStore) -> None:
    store.put([letter(DAY + 1)])
    assert health() == HEALTHY
    store.put([letter(DAY), letter(0)])
    assert health().reasons == ("The store memory has 2 dead letters of the last 24 hours.",)
    assert health(dead=2) == HEALTHY
    assert len(health(dead=1).reasons) == 1


def test_the_thresholds_are_settings() -> None:
    store = MemoryStore()
    store.put([waiting(601), letter(0)])
    with in_memory(store=store, health_late=700.0, health_dead=1):
        assert health() == HEALTHY
        assert len(health(late=600, dead=0).reasons) == 2


class BrokenStore(MemoryStore):
    def oldest_pending(self) -> float | None:
        raise ConnectionError("postgresql://shop:hunter2@10.0.0.1 refuses")


def test_a_store_that_cannot_be_read_is_a_reason_without_what_its_error_says(caplog: pytest.LogCaptureFixture) -> None:
    with in_memory(store=BrokenStore()):
        found = health()
    assert found.reasons == ("The store memory cannot be read: ConnectionError.",)
    assert "hunter2" not in found.to_json() and "hunter2" in caplog.text


def test_one_store_that_cannot_be_read_does_not_hide_the_others() -> None:
    other = MemoryStore(alias="other")
    other.put([letter(0)])
    with in_memory(store=BrokenStore(), joins=(other,)):
        assert [each.partition(":")[0] for each in health().reasons] == [
            "The store memory cannot be read",
            "The store memory other has 1 dead letter of the last 24 hours.",
        ]


@pytest.mark.defer_real
@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (Config(), "defer is not configured."),
        (Config(transport="memory", store="no_such:Store"), "The configuration cannot be used: ConfigError."),
    ],
)
def test_a_service_that_is_not_configured_is_not_healthy(
    monkeypatch: pytest.MonkeyPatch, config: Config, reason: str
) -> None:
    monkeypatch.setattr(active, "_explicit", config)
    assert health().reasons == (reason,)


def test_nothing_that_a_task_holds_is_said(store: MemoryStore) -> None:
    store.put([letter(0)])
    assert "secret" not in health().to_json()


def test_no_letter_is_read(store: MemoryStore) -> None:
    store.put([letter(0), waiting(601)])
    with patch.multiple(store, list=None, get=None):
        assert len(health().reasons) == 2


# --- the command ------------------------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    return main(["health", *arguments]), capsys.readouterr().out


def test_the_command_ends_with_1_and_the_reasons(store: MemoryStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys) == (0, "healthy\n")
    store.put([letter(0), waiting(601)])
    status, said = run(capsys)
    assert (status, len(said.splitlines())) == (1, 2) and "1 dead letter" in said
    assert run(capsys, "--late", "700", "--dead", "1") == (0, "healthy\n")


def test_the_command_speaks_json(store: MemoryStore, capsys: pytest.CaptureFixture[str]) -> None:
    store.put([letter(0)])
    status, said = run(capsys, "--json")
    found: Any = json.loads(said)
    assert (status, found["healthy"], len(found["reasons"])) == (1, False, 1)
