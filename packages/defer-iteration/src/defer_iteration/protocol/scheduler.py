"""The tasks of an iteration: each is enqueued in the transaction that makes it necessary, under a name of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from defer_core.spi import Task, TaskOptions, enqueue_many, new_id

from ..model.iteration import Iteration
from ..model.shard import Shard
from ..stores.base import IterationStore

TaskFunction = Callable[..., None]
"""Called with a store's alias, an iteration's id, and the arguments named below."""


@dataclass(frozen=True, kw_only=True)
class TaskFunctions:
    """The callables whose names travel. The protocol gets them in this table because they call the protocol."""

    plan: TaskFunction
    """Takes no further argument."""
    shard: TaskFunction
    """Takes the shard's index and its generation."""
    fan_out: TaskFunction
    """Takes the iteration's generation, and the index of the last shard that was started."""
    finalize: TaskFunction
    """Takes no further argument."""
    quarantined: TaskFunction
    """Takes how many of the quarantined rows have been called."""
    failed: TaskFunction
    """Takes the iteration's generation."""


@dataclass(frozen=True, kw_only=True)
class Scheduler:
    """Enqueues the tasks of a store's iterations, in the store's transactions."""

    store: IterationStore
    """Where the iterations are stored."""
    functions: TaskFunctions
    """What the tasks call."""

    def enqueue_plan(self, iteration: Iteration) -> None:
        """Enqueue the plan of an iteration that is `new`."""
        self._enqueue(iteration, self.functions.plan, f"plan-{iteration.generation}")

    def enqueue_shards(self, iteration: Iteration, shards: Sequence[Shard], *, eta: float | None = None) -> None:
        """Enqueue these shards in their generations, at once or at `eta` (seconds since the epoch)."""
        func = self.functions.shard
        enqueue_many(
            [
                self._task(iteration, func, f"{each.index}-{each.generation}", each.index, each.generation, eta=eta)
                for each in shards
            ]
        )

    def enqueue_fan_out(self, iteration: Iteration, *, after: int) -> None:
        """Enqueue the start of the shards whose index is above `after`, in this generation of the iteration."""
        name = f"fan-out-{iteration.generation}-{after}"
        self._enqueue(iteration, self.functions.fan_out, name, iteration.generation, after)

    def enqueue_finalize(self, iteration: Iteration) -> None:
        """Enqueue the finalize of an iteration that is `finalizing`."""
        self._enqueue(iteration, self.functions.finalize, f"finalize-{iteration.generation}")

    def enqueue_quarantined(self, iteration: Iteration, *, after: int = 0) -> None:
        """Enqueue another call of the quarantined rows, less the first `after`."""
        self._enqueue(iteration, self.functions.quarantined, f"again-{new_id()}", after)

    def enqueue_failed(self, iteration: Iteration) -> None:
        """Enqueue the news that an iteration is `failed` or `held` in this generation."""
        self._enqueue(iteration, self.functions.failed, f"failed-{iteration.generation}", iteration.generation)

    def _enqueue(self, iteration: Iteration, func: TaskFunction, name: str, *args: Any) -> None:
        enqueue_many([self._task(iteration, func, name, *args)])

    def _task(self, iteration: Iteration, func: TaskFunction, name: str, *args: Any, eta: float | None = None) -> Task:
        alias = self.store.alias
        routing = iteration.options.routing(f"{iteration.id}-{name}", eta)
        options = TaskOptions(routing=routing, transactional=True, using=alias, idempotent=True)
        return Task(func=func, args=(alias, iteration.id, *args), options=options)
