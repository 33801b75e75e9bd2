"""The tasks of an iteration: each is enqueued in the transaction that makes it necessary, under a name of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from defer_core.bulk import enqueue_many
from defer_core.callables import resolve
from defer_core.record import new_id
from defer_core.task import Task, TaskOptions

from .base import IterationStore
from .iteration import Iteration
from .shard import Shard


def schedule_plan(store: IterationStore, iteration: Iteration) -> None:
    """Enqueue the plan of an iteration that is `new`."""
    enqueue_many([_task(store, iteration, "plan:run_plan", f"plan-{iteration.generation}")])


def schedule_shards(
    store: IterationStore, iteration: Iteration, shards: Sequence[Shard], *, eta: float | None = None
) -> None:
    """Enqueue these shards in their generations, at once or at `eta` (seconds since the epoch)."""
    enqueue_many(
        [
            _task(
                store,
                iteration,
                "shard_run:run_shard",
                f"{each.index}-{each.generation}",
                each.index,
                each.generation,
                eta=eta,
            )
            for each in shards
        ]
    )


def schedule_opening(store: IterationStore, iteration: Iteration, *, after: int) -> None:
    """Enqueue the opening of the shards beyond one, in this generation of the iteration."""
    name = f"open-{iteration.generation}-{after}"
    enqueue_many([_task(store, iteration, "opening:run_opening", name, iteration.generation, after)])


def schedule_finalize(store: IterationStore, iteration: Iteration) -> None:
    """Enqueue finalize for an iteration that is `finalizing`."""
    enqueue_many([_task(store, iteration, "finalize:run_finalize", f"finalize-{iteration.generation}")])


def schedule_quarantined(store: IterationStore, iteration: Iteration, *, after: int = 0) -> None:
    """Enqueue another call of the quarantined rows beyond the first `after`."""
    enqueue_many([_task(store, iteration, "quarantine:run_quarantined", f"again-{new_id()}", after)])


def _task(
    store: IterationStore, iteration: Iteration, func: str, name: str, *args: Any, eta: float | None = None
) -> Task:
    routing = iteration.options.routing(f"{iteration.id}-{name}", eta)
    return Task(
        func=_task_function(func),
        args=(store.alias, iteration.id, *args),
        options=TaskOptions(routing=routing, transactional=True, using=store.alias, idempotent=True),
    )


def _task_function(name: str) -> Callable[..., Any]:
    """By name, for the tasks themselves schedule their successors."""
    function: Callable[..., Any] = resolve(f"{__package__}.{name}")
    return function
