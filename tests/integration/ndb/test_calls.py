"""The calls over the network of a defer on Cloud Tasks and the Datastore, counted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import services
from testapp import tasks

from defer_core import defer, defer_many
from defer_core.config import configured
from defer_core.stores.ndb.store import NdbTaskStore

ndb = services.library("google.cloud.ndb")
services.library("google.cloud.tasks_v2")


class Calls:
    """Those of the store and those of the queue, in one list."""

    def __init__(self, of_store: list[str], of_queue: list[str]) -> None:
        self.of_store, self.of_queue = of_store, of_queue

    def taken(self) -> tuple[list[str], list[str]]:
        """What was called since the last time."""
        found = list(self.of_store), list(self.of_queue)
        self.of_store.clear()
        self.of_queue.clear()
        return found


@pytest.fixture(params=[True, False], ids=["batches", "no batches"])
def made(request: pytest.FixtureRequest, calls: list[str], store: NdbTaskStore) -> Iterator[Calls]:
    from cloud_server import CloudServer, serving

    from defer_core.transports.cloud.transport import CloudTasksTransport

    with serving(CloudServer(batches=request.param)) as server:
        transport = CloudTasksTransport(project="p", location="l", emulator_host=f"127.0.0.1:{server.port}")
        with configured(transport=transport, store=store):
            yield Calls(calls, server.calls)


def test_a_small_task_is_one_call(made: Calls) -> None:
    defer(tasks.record, 1, _small_task=True)
    assert made.taken() == ([], ["CreateTask"])


@pytest.mark.parametrize("size", [10, 300_000])
def test_a_task_is_two_calls_whatever_was_sent_before(made: Calls, size: int) -> None:
    for _ in range(3):
        defer(tasks.record, os.urandom(size))
        assert made.taken() == (["commit"], ["CreateTask"])


@pytest.mark.parametrize("size", [10, 300_000])
def test_a_transactional_task_is_one_call_after_the_commit(made: Calls, client: Any, size: int) -> None:
    def body() -> None:
        defer(tasks.record, os.urandom(size))
        assert made.taken() == (["begin_transaction"], [])

    with client.context():
        ndb.transaction(body)
    assert made.taken() == (["commit"], ["CreateTask"])


def test_a_thousand_tasks(made: Calls, request: pytest.FixtureRequest) -> None:
    defer_many(tasks.record, [(number,) for number in range(1000)])
    of_store, of_queue = made.taken()
    assert of_store == ["commit"] * 2
    batched = of_queue == ["BatchCreateTasks"] * 10
    assert batched or (of_queue.count("CreateTask"), of_queue.count("BatchCreateTasks")) == (1000, 10)
    assert batched is ("no batches" not in request.node.name)
