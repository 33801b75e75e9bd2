"""Iterations whose tasks are delivered to the site's own view, under ATOMIC_REQUESTS."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, connections
from django.test import Client
from testapp import iterations
from testapp.models import Row

from defer_core.spi import clock
from defer_core.testing import QueuedTask
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration import models

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def atomic_requests(queue: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Every view in a transaction, on App Engine."""
    monkeypatch.setenv("GAE_ENV", "standard")
    for alias in connections:
        monkeypatch.setitem(connections[alias].settings_dict, "ATOMIC_REQUESTS", True)


def post(task: QueuedTask) -> int:
    """The status of one delivery."""
    headers = {"HTTP_X_APPENGINE_QUEUENAME": "default", "HTTP_X_APPENGINE_TASKNAME": task.name}
    client = Client(raise_request_exception=False)
    body = task.message.body
    return client.post("/_ah/queue/deferred", body, content_type="application/octet-stream", **headers).status_code


def run_all(queue: Any) -> None:
    while tasks := queue.queued():
        assert post(tasks[0]) == 200
        queue.remove(tasks[0])


def test_an_iteration_runs_from_the_call_to_finalize(queue: Any, rows: Any) -> None:
    keys, blocks = rows(20), []
    iterations.before.append(lambda row: blocks.append(connection.in_atomic_block))
    iterations.finalizing.append(lambda: blocks.append(connection.in_atomic_block))
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=3)
    run_all(queue)
    assert iterations.times() == dict.fromkeys(keys, 1) and iterations.finalized == [()]
    assert blocks == [False] * 21


def test_an_attempt_that_is_answered_500_keeps_its_checkpoints(
    queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, at = rows(10), [1_000_000.0]
    with clock.replaced(lambda: at[0]):
        walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1)
        assert post(queue.queued()[0]) == 200
        queue.remove(queue.queued()[0])
        iterations.before.append(lambda row: at.__setitem__(0, at[0] + 1.0))  # a second a row: checkpoints after 3
        with monkeypatch.context() as patch:
            patch.setattr("defer_iteration.protocol.attempt.Attempt._complete", lambda *args: 1 / 0)
            assert post(queue.queued()[0]) == 500
        assert models.Shard.objects.get().rows == 9
        run_all(queue)
    assert iterations.times() == dict.fromkeys(keys, 1) | {keys[9]: 2}
    assert iterations.finalized == [()]
