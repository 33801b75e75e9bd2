"""Schedules of one iteration each: a call that commits or not, workers, duplicates, sweeps, a person who pauses it.

Half of the schedules have a queue that gives up, and a sweep that wakes what has stalled. In the others the queue never
gives up and nothing is woken: whatever a task answers 2xx must then have a successor.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from defer_core import config, sweep
from defer_core.record import State
from defer_iteration import stores
from defer_iteration.api import defer_iteration_with_finalize
from defer_iteration.base import IterationStore
from defer_iteration.context import current_iteration, current_shard
from defer_iteration.errors import TimeoutException
from defer_iteration.handle import IterationHandle
from defer_iteration.iteration import IterationState
from defer_iteration.store_memory import MemoryIterationStore, MemoryRows
from defer_iteration.sweeper import wake_stalled

from .tasks import SETTINGS
from .world import DatabaseError, FaultyStore, Process, World

ATTEMPTS = 2
"""Calls of a row before it is quarantined, where rows are."""
GIVES_UP_AFTER = 6
"""Attempts that a queue that gives up makes."""


class IterationWorld(World):
    """A world that knows which rows were passed, and when `finalize` ran."""

    current: IterationWorld

    def __init__(self, seed: int, *, faults: float = 0.06) -> None:
        super().__init__(seed, faults=faults, settings=SETTINGS)
        IterationWorld.current = self
        self.iterations = MemoryIterationStore(self.store)
        self.rows = {key * 3: f"row {key}" for key in range(self.random.choice([0, 1, 5, 12, 25]))}
        self.wakes = self.chance(0.5)
        self.poison = {key for key in self.rows if self.chance(0.1)}
        self.quarantines = bool(self.poison) and self.chance(0.3)
        self.passed: Counter[int] = Counter()
        self.raised: Counter[int] = Counter()
        self.finalized = 0
        self.succeeded = 0
        self.counters: dict[str, int] = {}
        self.handle: IterationHandle | None = None
        self.states: list[IterationState | None] = []
        self.positions: dict[int, Any] = {}
        """How far each shard's checkpoints have come."""
        self.kept = self.chance(0.5)

    @property
    def process_type(self) -> type[Process]:
        return IterationProcess

    def quarantined(self) -> set[int]:
        """The rows that are set aside: those of the poisoned ones that were reached, and any that failed as often."""
        return {row.key[0] for each in self.iterations.list() for row in self.iterations.quarantined(each.id)}

    def check(self) -> None:
        """Watch the iteration's states go by."""
        found = self.iterations.list()
        state = found[0].state if found else None
        if not self.states or self.states[-1] is not state:
            self.states.append(state)
        for shard in self.iterations.shards(found[0].id) if found else []:
            before = self.positions.get(shard.index)
            if before is not None and (shard.position is None or shard.position < before):
                self.violations.append(f"promise 5: shard {shard.index} went back from {before} to {shard.position}")
            if shard.position is not None:
                self.positions[shard.index] = shard.position
        if self.wakes and self.faults:
            for task in self.queue.queued():
                if task.attempts >= GIVES_UP_AFTER:
                    self.tell(f"the queue gives up {task.name[-12:]}")
                    self.counts["queue gave up"] += 1
                    self.queue.remove(task)


class IterationProcess(Process):
    """A process with its own view of the iterations."""

    def __init__(self, name: str, world: World) -> None:
        super().__init__(name, world)
        self.iterations = FaultyIterationStore(self)

    def enter(self) -> None:
        super().enter()
        stores._in_use.clear()
        stores._in_use[""] = self.iterations


class _Faulty(type(IterationStore)):  # type: ignore[misc]
    """Makes every abstract method of the seam a call that may fail."""

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:
        for method in IterationStore.__abstractmethods__ - body.keys():
            body[method] = _failing(method)
        return super().__new__(cls, name, bases, body)


def _failing(method: str) -> Callable[..., Any]:
    def call(self: FaultyIterationStore, *args: Any, **kwargs: Any) -> Any:
        with self.process.call(f"iteration {method}", after=not self.in_transaction()):
            return getattr(self.inner, method)(*args, **kwargs)

    return call


class FaultyIterationStore(IterationStore, metaclass=_Faulty):
    """The iterations as a process sees them, in the transactions of its FaultyStore."""

    alias = ""

    def __init__(self, process: IterationProcess) -> None:
        world = process.world
        assert isinstance(world, IterationWorld)
        self.process, self.inner = process, world.iterations

    def claim(self, iteration_id: str, index: int, generation: int, **kwargs: Any) -> Any:
        with self.process.call("iteration claim"):
            claimed = self.inner.claim(iteration_id, index, generation, **kwargs)
        if claimed is not None and claimed[1].generation != generation:
            late = f"a task of generation {generation} took shard {index} from generation {claimed[1].generation}"
            self.process.world.violations.append(f"promise 5: {late}")
        return claimed

    def transaction(self) -> AbstractContextManager[Any]:
        store = self.process.config.the_store
        assert isinstance(store, FaultyStore)
        return store.transaction()

    def in_transaction(self) -> bool:
        return self.inner.in_transaction()


def rows() -> MemoryRows:
    """The source of the iteration."""
    return MemoryRows(IterationWorld.current.rows, page=4)


def callback(row: str, note: str) -> None:
    """Passes a row: takes its time, may be killed, may raise."""
    world = IterationWorld.current
    key = int(row.removeprefix("row ")) * 3
    world.now += world.random.choice([0.0, 0.5, 4.0])
    if world.chance(0.5):
        try:
            with _process(world).call(f"callback {key}", writes=False):
                pass
        except DatabaseError:
            world.raised[key] += 1
            raise
    if key in world.poison and (world.quarantines or world.raised[key] < 2):
        world.raised[key] += 1
        raise ValueError(key)
    if world.faults and world.chance(0.02):
        raise TimeoutException
    shard = current_shard()
    assert shard is not None and note == "note"
    world.passed[key] += 1
    shard.count("rows")


def finalize(note: str) -> None:
    """The end: every row must have been passed by now."""
    world = IterationWorld.current
    world.finalized += 1
    iteration = current_iteration()
    assert iteration is not None
    world.counters = dict(iteration.counters)
    quarantined = world.quarantined()
    left = [key for key in world.rows if not world.passed[key] and key not in quarantined]
    if left:
        world.violations.append(f"promise 4: finalize ran while rows {left} had not been passed")
    with _process(world).call("finalize", writes=False):
        pass
    world.succeeded += 1


def _process(world: World) -> Process:
    """The process that is running."""
    store = config.current().the_store
    assert isinstance(store, FaultyStore)
    return store.process


def begin(world: IterationWorld, how: str) -> None:
    """The site's call."""
    store = config.current().the_store
    assert isinstance(store, FaultyStore)
    start = functools.partial(
        defer_iteration_with_finalize,
        rows,
        callback,
        finalize,
        ["note"],
        _shards=world.random.randint(1, 4),
        _delete_marker=not world.kept,
        _dispatch_deadline=20.0,
        **({"_on_error": "quarantine", "_max_attempts": ATTEMPTS} if world.quarantines else {}),
    )
    if how == "outside":
        world.handle = start()
        world.committed.add("iteration")
        return
    try:
        with store.transaction():
            store.note("iteration")
            world.handle = start()
            if how == "rollback":
                raise KeyError
    except KeyError:
        world.tell("the call is rolled back")


def control(world: IterationWorld) -> None:
    """A person pauses the iteration, and resumes it later."""
    if world.handle is None:
        return
    world.counts["paused"] += 1
    try:
        world.handle.pause()
    finally:
        world.now += world.random.choice([1, 30])
        world.handle.resume()


def simulate(seed: int, *, faults: float = 0.06) -> IterationWorld:
    """Run one schedule to its rest, and return the world with the violations that the oracle found."""
    world = IterationWorld(seed, faults=faults)
    how = world.random.choice(["outside", "commit", "commit", "rollback"])
    with world.ruling(), stores.in_use():
        sweep._sweepers.pop("woken", None)
        world.start("call", functools.partial(begin, world, how))
        for _ in range(world.random.randint(8, 30)):
            disturb(world)
            if world.chance(0.4):
                world.run()
        world.run()
        rest(world)
        judge(world, how)
    return world


def disturb(world: IterationWorld) -> None:
    """Something else happens."""
    happening = world.random.choice(["time", "worker", "worker", "worker", "worker", "sweep", "person"])
    if happening == "time":
        world.now += world.random.choice([1, 25, 130])
    elif happening == "worker":
        for _ in range(world.random.randint(1, 3)):
            world.start_delivery()
    elif happening == "sweep":
        world.start("sweep", functools.partial(sweep_once, world))
    elif world.chance(0.1):
        world.start("person", functools.partial(control, world))


def sweep_once(world: IterationWorld) -> None:
    """The sweep, and in half of the schedules the waking that it does."""
    sweep.sweep()
    if world.wakes:
        world.counts["woken"] += wake_stalled(None)


def rest(world: IterationWorld) -> None:
    """Faults cease; sweeps and workers go on until nothing is left to do."""
    world.tell("--- faults cease")
    world.faults = world.outage = 0.0
    if world.handle is not None and "iteration" in world.committed:
        world.start("a person resumes", world.handle.resume)
        world.run()
    for _ in range(60):
        world.now += 700
        world.start("sweep", functools.partial(sweep_once, world))
        world.run()
        for task in world.queue.queued():
            world.start(f"worker on {task.name[-12:]}", functools.partial(world.deliver, task))
        world.run()
        over = all(each.state.is_over for each in world.iterations.list())
        if not world.queue.queued() and not world.store.count(State.PENDING) and (over or not world.wakes):
            return
    world.violations.append("the system does not come to rest")


def judge(world: IterationWorld, how: str) -> None:
    """The oracle: promises 2 to 6."""
    find = world.violations.append
    if how == "rollback" or "iteration" not in world.committed:
        if how == "rollback" and (world.passed or world.finalized or world.iterations.list()):
            find("promise 2: an iteration was rolled back and ran")
        return
    quarantined = world.quarantined()
    if any(world.raised[key] < ATTEMPTS for key in quarantined):
        find("a row was quarantined that had not raised often enough")
    for key in world.rows:
        if not world.passed[key] and key not in quarantined:
            find(f"promise 3: row {key} was skipped")
    if not world.succeeded:
        find("promise 4: finalize was lost")
    entries = [at for at, state in enumerate(world.states) if state is IterationState.FINALIZING]
    again = [at for at in entries[1:] if world.states[at - 1] is not IterationState.PAUSED]
    if not entries or again:
        find(f"promise 4: finalize was recorded {len(again) + bool(entries)} times")
    _judge_counters(world, quarantined)
    if not any(world.counts.values()) and any(count != 1 for count in world.passed.values()):
        find("promise 3: a row was passed twice in a schedule without faults")
    _judge_marker(world)


def _judge_counters(world: IterationWorld, quarantined: set[int]) -> None:
    expected = len(world.rows) - len(quarantined)
    if world.counters.get("rows", 0) != expected:
        world.violations.append(f"the counters say {world.counters.get('rows', 0)} rows of {expected}")


def _judge_marker(world: IterationWorld) -> None:
    kept = [each.state for each in world.iterations.list()]
    wanted = world.kept or bool(world.quarantined())
    if kept != [IterationState.DONE] * wanted:
        world.violations.append(f"the marker is {kept}, and it was{'' if wanted else ' not'} to be kept")
    done = [record for record in world.store.records.values() if record.state is not State.DEAD]
    if done:
        world.violations.append(f"records were left over: {[record.id for record in done]}")
