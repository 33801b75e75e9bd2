"""What the local transport knows of its queues."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from defer_core.errors import ConfigError
from defer_core.spi import Message, QueueState, Routing, clock
from defer_local import LocalTransport

NOW = 1_800_000_000.0


@pytest.fixture
def transport(tmp_path: Path) -> Iterator[LocalTransport]:
    transport = LocalTransport(file=tmp_path / "queue.sqlite3")
    with clock.replaced(lambda: NOW):
        for queue, eta in (("mail", NOW - 90), ("mail", NOW + 3600), ("slow", NOW), ("later", NOW + 5)):
            transport.send(Message(body=b"x", routing=Routing(queue=queue, eta=eta)))
        yield transport
    transport.close()


def test_each_queue_has_its_tasks(transport: LocalTransport) -> None:
    transport.queue.beat("a dispatcher", "another host", 1, NOW + 20)
    assert {each.name: each for each in transport.queue_states()} == {
        "mail": QueueState(name="mail", state="running", tasks=2, due=1, running=0, waits=90.0),
        "slow": QueueState(name="slow", state="running", tasks=1, due=1, running=0, waits=0.0),
        "later": QueueState(name="later", state="running", tasks=1, due=0, running=0),
    }


@pytest.mark.parametrize("beats", [[], [("gone", "another host", 1, NOW - 1)]])
def test_a_queue_whose_due_tasks_nobody_delivers_says_so(transport: LocalTransport, beats: list[Any]) -> None:
    for each in beats:
        transport.queue.beat(*each)
    found = {each.name: each.state for each in transport.queue_states()}
    assert found == {"mail": "undelivered", "slow": "undelivered", "later": "running"}


def test_without_a_file_there_are_none_and_none_is_made(tmp_path: Path) -> None:
    file = tmp_path / "queue.sqlite3"
    assert LocalTransport(file=file).queue_states() == []
    assert not file.exists()


def test_a_file_that_is_no_queue_is_named(tmp_path: Path) -> None:
    file = tmp_path / "queue.sqlite3"
    file.write_bytes(b"no queue" * 1000)
    with pytest.raises(ConfigError, match="cannot be read as a queue"):
        LocalTransport(file=file).queue_states()
