"""What the local transport knows of its queues."""

from __future__ import annotations

from pathlib import Path

import pytest

from defer_core.errors import ConfigError
from defer_core.spi import Message, QueueState, Routing, clock
from defer_local import LocalTransport


def test_each_queue_has_its_tasks(tmp_path: Path) -> None:
    transport = LocalTransport(file=tmp_path / "queue.sqlite3")
    for queue, eta in (("mail", None), ("mail", clock.now() + 3600), ("slow", None)):
        transport.send(Message(body=b"x", routing=Routing(queue=queue, eta=eta)))
    assert {each.name: each for each in transport.queue_states()} == {
        "mail": QueueState(name="mail", state="running", tasks=2, due=1, running=0),
        "slow": QueueState(name="slow", state="running", tasks=1, due=1, running=0),
    }
    transport.close()


def test_without_a_file_there_are_none_and_none_is_made(tmp_path: Path) -> None:
    file = tmp_path / "queue.sqlite3"
    assert LocalTransport(file=file).queue_states() == []
    assert not file.exists()


def test_a_file_that_is_no_queue_is_named(tmp_path: Path) -> None:
    file = tmp_path / "queue.sqlite3"
    file.write_bytes(b"no queue" * 1000)
    with pytest.raises(ConfigError, match="cannot be read as a queue"):
        LocalTransport(file=file).queue_states()
