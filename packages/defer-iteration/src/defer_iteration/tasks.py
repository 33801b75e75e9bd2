"""The callables whose names travel, and nothing else: a task in a queue refers to them by name for as long as it
waits."""

from __future__ import annotations

from .protocol import failed, fan_out, finalize, plan, quarantine, shard
from .protocol.scheduler import Scheduler, TaskFunctions
from .stores.routing import all_stores, store_on


def run_plan(alias: str, iteration_id: str) -> None:
    """Divide the rows, and start the shards."""
    plan.run(scheduler_on(alias), iteration_id)


def run_shard(alias: str, iteration_id: str, index: int, generation: int) -> None:
    """Walk a shard from its last checkpoint on."""
    shard.run(scheduler_on(alias), iteration_id, index, generation)


def run_fan_out(alias: str, iteration_id: str, generation: int, after: int) -> None:
    """Start the next page of shards."""
    fan_out.run(scheduler_on(alias), iteration_id, generation, after)


def run_finalize(alias: str, iteration_id: str) -> None:
    """Call `finalize`."""
    finalize.run(scheduler_on(alias), iteration_id)


def run_quarantined(alias: str, iteration_id: str, after: int = 0) -> None:
    """Call the quarantined rows once more."""
    quarantine.run(scheduler_on(alias), iteration_id, after)


def run_failed(alias: str, iteration_id: str, generation: int) -> None:
    """Call `on_failed`."""
    failed.run(store_on(alias), iteration_id, generation)


for function in (run_plan, run_shard, run_fan_out, run_finalize):
    vars(function)["sees_to_itself"] = True  # the sweep requeues them when they stall

FUNCTIONS = TaskFunctions(
    plan=run_plan,
    shard=run_shard,
    fan_out=run_fan_out,
    finalize=run_finalize,
    quarantined=run_quarantined,
    failed=run_failed,
)


def scheduler_on(alias: str) -> Scheduler:
    """Return the scheduler of the iterations on an alias."""
    return Scheduler(store=store_on(alias), functions=FUNCTIONS)


def all_schedulers() -> list[Scheduler]:
    """Return a scheduler for every alias that has iterations."""
    return [Scheduler(store=store, functions=FUNCTIONS) for store in all_stores()]
