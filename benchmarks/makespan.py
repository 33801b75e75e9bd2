"""How long a walk takes beside the least that it could, by how its work is spread over its rows: divided, and not.

The code is the real one, over stores and a queue in memory. Workers are greenlets, whose time is virtual: a row takes
what its distribution says, a task takes TASK_COSTS and comes LATENCY after it was sent; a worker that is killed is
replaced at once, and its task comes again NOTICED later. So the figures are the same on every machine, and a goal that
is missed is an error. The floor is all work, divided by the speed of all workers; or the longest row.
"""

from __future__ import annotations

import heapq
import logging
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, count
from pathlib import Path
from typing import Any

from defer_core.testing import MemoryTransport

from ._figures import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

ROWS = 20_000
WORKERS = 16
A_WORKER = 120.0
"""Seconds of work for each worker."""
TASK_COSTS, LATENCY, NOTICED = 0.05, 0.1, 5.0
KILLS = 12
GOALS = {16: "≤ 1.35", 64: "≤ 1.20"}
"""By the number of shards."""


def rows() -> list[Figure]:
    """All figures."""
    return [
        figured(each, shards, rebalance) for each in distributions() for shards in GOALS for rebalance in (False, True)
    ]


# --- distributions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """The work of an iteration."""

    name: str
    costs: Sequence[float]
    """Seconds of each row, at full speed."""
    speeds: Sequence[float] = (1.0,) * WORKERS
    """The speed of each worker."""
    kills: int = 0
    """How many times a worker is killed, at times that are spread over the least time that the walk takes."""

    @property
    def floor(self) -> float:
        """The least seconds that the walk can take."""
        return max(sum(self.costs) / sum(self.speeds), max(self.costs))


def distributions() -> Iterator[Distribution]:
    """The nine."""
    uniform, tenants = scaled([1.0] * ROWS), scaled(by_tenant(100, 1.2))
    yield Distribution(name="uniform", costs=uniform)
    yield Distribution(name="linear ramp", costs=scaled([row + 1.0 for row in range(ROWS)]))
    yield Distribution(name="Zipf 1.0, shuffled", costs=scaled(at_a_fifth(shuffled(zipf(ROWS, 1.0)))))
    yield Distribution(name="Zipf 1.2 of 100 tenants", costs=tenants)
    yield Distribution(name="1 % of rows hold half", costs=scaled(heavy(ROWS // 100, 1 / 2, at=ROWS * 3 // 10)))
    yield Distribution(name="last 0.2 % hold a third", costs=scaled(heavy(ROWS // 500, 1 / 3, at=ROWS - ROWS // 500)))
    yield Distribution(name="one worker at 1/5", costs=uniform, speeds=(*[1.0] * (WORKERS - 1), 0.2))
    yield Distribution(name=f"uniform, {KILLS} kills", costs=uniform, kills=KILLS)
    yield Distribution(name=f"tenants, {KILLS} kills", costs=tenants, kills=KILLS)


def scaled(weights: Sequence[float]) -> list[float]:
    """The weights as seconds, all together A_WORKER for each worker."""
    second = sum(weights) / (A_WORKER * WORKERS)
    return [weight / second for weight in weights]


def zipf(number: int, exponent: float) -> list[float]:
    return [rank**-exponent for rank in range(1, number + 1)]


def shuffled(weights: list[float]) -> list[float]:
    return random.Random(1).sample(weights, len(weights))


def at_a_fifth(weights: list[float]) -> list[float]:
    """Move the longest row to a fifth of the rows. It takes longer than an equal share of all work, and nobody knows of
    it before it comes: if it came late, all would wait for it, however the rows are divided."""
    weights.remove(longest := max(weights))
    weights.insert(ROWS // 5, longest)
    return weights


def by_tenant(tenants: int, exponent: float) -> list[float]:
    """Tenants have as many rows each, which are neighbours and alike."""
    return [weight for weight in shuffled(zipf(tenants, exponent)) for _ in range(ROWS // tenants)]


def heavy(number: int, share: float, *, at: int) -> list[float]:
    """Some rows, neighbours, have a share of all work."""
    light, heavier = (1 - share) / (ROWS - number), share / number
    return [heavier if at <= row < at + number else light for row in range(ROWS)]


# --- virtual time -----------------------------------------------------------------------------------------------------


def figured(work: Distribution, shards: int, rebalance: bool) -> Figure:
    logging.disable(logging.CRITICAL)
    took = Walk(work).run(_shards=shards, _rebalance=rebalance)
    how = "divided" if rebalance else "not divided"
    what = f"makespan, {work.name}, {shards} shards, {how}"
    return what, f"{work.floor:.0f} s", f"{took:.0f} s", took / work.floor, GOALS[shards] if rebalance else ""


def all_rows() -> Any:
    """The source of the iteration."""
    from defer_iteration.rows.memory import MemoryRows

    return MemoryRows({row: row for row in range(ROWS)}, page=2_000)


def callback(row: int) -> None:
    """What is called for each row."""
    Walk.current.sleep(Walk.current.work.costs[row])
    Walk.current.passed.add(row)


def finalize() -> None:
    """What is called at the end."""
    Walk.current.finished = Walk.current.now


class Queue(MemoryTransport):
    """A queue that says when something may have to be delivered."""

    is_changed = False

    def send(self, message: Any) -> str:
        self.changed()
        return super().send(message)

    def changed(self) -> None:
        self.is_changed = True


class Walk:
    """One iteration, on workers whose time is virtual."""

    current: Walk

    def __init__(self, work: Distribution) -> None:
        Walk.current = self
        self.work, self.queue = work, Queue()
        self.now = self.began = 1_800_000_000.0
        self.finished: float | None = None
        self.passed: set[int] = set()
        self.events: list[tuple[float, int, Callable[[], object]]] = []
        """What happens when; of what happens at once, the earlier entry first."""
        self.numbers = count()
        self.idle = list(range(WORKERS))
        self.busy: dict[int, Any] = {}
        """The greenlet of each worker that has a task."""
        self.delivering: dict[str, float] = {}
        """By the name of a task: when it may be delivered (again)."""
        self.random = random.Random(2)

    def at(self, when: float, what: Callable[[], object]) -> None:
        """Let something happen."""
        heapq.heappush(self.events, (when, next(self.numbers), what))

    def run(self, **options: Any) -> float:
        """Return the seconds until `finalize` was called."""
        from simulation.world import AcceptAll

        from defer_core import clock, config
        from defer_core.testing import MemoryStore
        from defer_iteration import defer_iteration_with_finalize
        from defer_iteration.stores import routing
        from defer_iteration.stores.memory import MemoryIterationStore

        store = MemoryStore()
        configured = config.configured(
            transport=self.queue, store=store, authenticators=[AcceptAll()], sweep_interval=3600.0
        )
        with clock.replaced(lambda: self.now), configured, routing.in_use(MemoryIterationStore(store)):
            defer_iteration_with_finalize(all_rows, callback, finalize, **options)
            for gap in accumulate([self.work.floor / (self.work.kills + 1)] * self.work.kills):
                self.at(self.now + gap, self.kill)
            while self.finished is None:
                if self.queue.is_changed:
                    self.deliver()
                self.now, _, happen = heapq.heappop(self.events)
                happen()
        assert len(self.passed) == ROWS
        return self.finished - self.began

    def deliver(self) -> None:
        """Give tasks that have come to workers that are idle, and look again when the next one comes."""
        self.queue.is_changed = False
        for task in sorted(self.queue.queued(), key=lambda task: task.due):
            if task.name not in self.delivering:
                self.delivering[task.name] = max(task.due, self.now) + LATENCY
                self.at(self.delivering[task.name], self.queue.changed)
            if self.idle and self.delivering[task.name] <= self.now:
                self.delivering[task.name] = float("inf")
                self.start(self.idle.pop(0), task)

    def start(self, worker: int, task: Any) -> None:
        """Let a worker handle a task."""
        import greenlet
        from simulation.world import Crash, _request

        from defer_gae_handler import handle

        def body() -> None:
            try:
                self.sleep(TASK_COSTS)
                status = handle(_request(task)).status
                assert 200 <= status < 300
                self.queue.remove(task)
            except Crash:
                self.delivering[task.name] = self.now + NOTICED
                self.at(self.now + NOTICED, self.queue.changed)
            del self.busy[worker]
            self.idle.append(worker)
            self.queue.changed()

        self.busy[worker] = greenlet.greenlet(body)
        self.busy[worker].worker = worker
        self.busy[worker].switch()

    def sleep(self, seconds: float) -> None:
        """Let time pass for the worker that calls this."""
        import greenlet

        let = greenlet.getcurrent()
        self.at(self.now + seconds / self.work.speeds[let.worker], lambda: let.dead or let.switch())
        let.parent.switch()

    def kill(self) -> None:
        """Kill a worker."""
        from simulation.world import Crash

        if self.busy:
            self.busy[self.random.choice(sorted(self.busy))].throw(Crash)
