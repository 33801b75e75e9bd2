"""What callbacks can ask about the shard and the iteration that call them."""

from __future__ import annotations

import os
from typing import Any

from testapp import iterations
from testapp.models import Row

from defer_core.testing import drain
from defer_iteration import defer_iteration_with_finalize

walk = defer_iteration_with_finalize


def test_a_callback_is_told_its_shard_in_three_ways(queue: Any, rows: Any) -> None:
    rows(10)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=5)
    drain(queue)
    assert all(len(set(told)) == 1 for told in iterations.shards.values())
    assert "DEFERRED_ITERATION_SHARD_INDEX" not in os.environ


def test_a_shard_that_ends_takes_the_variable_from_no_other() -> None:
    from defer_iteration.context import CurrentShard, running
    from defer_iteration.model.iteration import Iteration

    iteration = Iteration(id="i", job=b"")
    first = running(iteration, CurrentShard(index=1, iteration_id="i"))
    with running(iteration, CurrentShard(index=2, iteration_id="i")):
        first.__enter__()
    assert os.environ["DEFERRED_ITERATION_SHARD_INDEX"] == "1"
    first.__exit__(None, None, None)
    assert "DEFERRED_ITERATION_SHARD_INDEX" not in os.environ
