"""App Engine's bundled services: Google's own stubs, from the SDK."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import services

from defer_core import config


@pytest.fixture
def bed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Datastore, Task Queue and memcache in memory; on App Engine as far as the environment says, where it is UTC."""
    testbed = services.library("google.appengine.ext.testbed")
    monkeypatch.setenv("GAE_ENV", "standard")
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    (tmp_path / "queue.yaml").write_text("queue:\n- name: mail\n  rate: 1/s\n")
    stubs = testbed.Testbed()
    stubs.activate()
    stubs.init_datastore_v3_stub()
    stubs.init_memcache_stub()
    stubs.init_taskqueue_stub(root_path=str(tmp_path))
    from integration.appengine.deferrable import calls

    config.configure(transport="appengine", sweep_interval=0.0)
    calls.clear()
    yield stubs
    config.reset()
    stubs.deactivate()
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def queue(bed: Any) -> Any:
    """The stub of the Task Queue."""
    return bed.get_stub("taskqueue")


@pytest.fixture
def added(queue: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The SDK's Tasks, as they were added (the stub forgets target and retry options):
    one, or a list of many, a call."""
    taskqueue = services.library("google.appengine.api.taskqueue")
    seen: list[Any] = []
    original = taskqueue.Queue.add_async

    def add_async(self: Any, task: Any, *args: Any) -> Any:
        seen.append(task)
        return original(self, task, *args)

    monkeypatch.setattr(taskqueue.Queue, "add_async", add_async)
    return seen
