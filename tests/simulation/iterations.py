"""Schedules of one iteration each: a call that commits or not (or, by a name, two at once), workers, duplicates,
sweeps, a person who pauses it, and who resumes it and calls quarantined rows again once what made rows raise is mended.

Half of the schedules have a queue that gives up, and a sweep that requeues what has stalled. In the others the queue
never gives up and nothing is requeued: whatever a task answers 2xx must then have a successor.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any
from unittest import mock

from defer_core import config
from defer_core.record import State
from defer_core.transports.memory import QueuedTask
from defer_core.upkeep import sweep
from defer_iteration.api import defer_iteration_with_finalize
from defer_iteration.context import current_iteration, current_shard
from defer_iteration.errors import TimeoutException
from defer_iteration.handle import IterationHandle
from defer_iteration.model.iteration import IterationState
from defer_iteration.model.shard import KeyRange
from defer_iteration.model.transitions import STOPPED
from defer_iteration.protocol import timing
from defer_iteration.protocol.sweeper import requeue_stalled
from defer_iteration.rows.memory import MemoryRows
from defer_iteration.stores import routing
from defer_iteration.stores.base import IterationStore
from defer_iteration.stores.memory import MemoryIterationStore
from defer_iteration.tasks import all_schedulers

from .tasks import SETTINGS
from .world import DatabaseError, FaultyStore, Process, World

GIVEN, FAILED, TRIAL = "parts given to shards that are done", "failed, and stayed so", "trials"
"""What is counted, and is no fault."""
GIVES_UP_AFTER = 6
"""Attempts that a queue that gives up makes."""


class IterationWorld(World):
    """A world that knows which rows were passed, and when `finalize` ran."""

    current: IterationWorld

    def __init__(self, seed: int, *, faults: float = 0.06) -> None:
        super().__init__(seed, faults=faults, settings=SETTINGS)
        IterationWorld.current = self
        self.iterations = MemoryIterationStore(self.store)
        self.rows = {key * 3: f"row {key}" for key in range(self.random.choice([0, 1, 5, 12, 25, 40]))}
        self.requeues = self.chance(0.5)
        self.slow_from = self.random.choice([None, 3 * len(self.rows) // 2, 2 * len(self.rows)])
        """The rows from this key on take long, and those before it no time, so that shards are divided; None: all are
        alike."""
        self.stubborn = self.random.choice([2, 2, 9])
        """How often a row raises that is to succeed at last."""
        self.poison = {key for key in self.rows if self.chance(0.1)}
        self.unreadable = {key for key in self.rows if self.chance(0.05)}
        bad = self.poison | self.unreadable
        self.on_error = self.random.choice(["retry", "quarantine", "fail"]) if bad else "retry"
        self.given_up: list[QueuedTask] = []
        """Tasks that the queue gave up, and that a person is to run again."""
        self.mended = False
        """Whether poisoned rows raise no more, however often they have."""
        self.passed: Counter[int] = Counter()
        self.raised: Counter[int] = Counter()
        self.finalized = 0
        self.succeeded = 0
        self.counters: dict[str, int] = {}
        self.handle: IterationHandle | None = None
        self.states: list[IterationState | None] = []
        self.positions: dict[tuple[int, Any], Any] = {}
        """How far each shard's checkpoints have come, by its index and the beginning of its range."""
        self.calls = self.random.choice([1, 2])
        """Calls of a row before it is quarantined, where rows are."""
        self.batch = self.random.choice([None, None, 2, 5, 20])
        """How many rows the callback is given at once; None gives it each by itself."""
        self.kept = self.chance(0.5)
        self.named = self.kept and seed % 2 == 1
        """Whether the iteration has a name, by which it is called twice at once."""
        self.begun = 0
        """How many calls that were committed have begun it."""
        self.throttled, self.paced = seed % 5 == 0, seed % 7 == 0
        """Whether shards wait when a function says so, and for the sake of a rate."""
        self.limit = seed % 10 + 1 if seed % 3 == 0 else None
        """How many rows the iteration begins with, as a trial."""
        self.resumed = False
        """Whether a person has resumed the iteration, and with that perhaps ended its trial."""
        self.told: set[int] = set()
        """The generations in which somebody was told that the iteration has failed or is held."""
        self.renewals = 0
        """How often a person has set about to cancel it, and to begin another one of its name."""
        self.run_of: float | None = None
        """When the iteration was called that is to be judged: what an older one of its name still does is not."""
        self.aside: set[int] = set()
        """The rows that were set aside when faults had ceased."""

    def sleep(self, seconds: float) -> None:
        """Let time pass, as a worker does that waits."""
        self.now += seconds

    @property
    def process_type(self) -> type[Process]:
        return IterationProcess

    def is_to_raise(self, key: int) -> bool:
        """Whether a row raises this time, which is counted."""
        raises = not self.mended and (self.on_error != "retry" or self.raised[key] < self.stubborn)
        self.raised[key] += raises
        return raises

    def quarantined(self) -> set[int]:
        """The rows that are set aside: those of the poisoned ones that were reached, and any that failed as often."""
        return {row.key[0] for each in self.iterations.list() for row in self.iterations.quarantined(each.id)}

    def check(self) -> None:
        """Watch the iteration's states go by."""
        found = self.iterations.list()
        if found and found[0].created != self.run_of:
            self.run_of = found[0].created
            self.succeeded = 0
            for each in (self.states, self.positions, self.passed):
                each.clear()
        state = found[0].state if found else None
        if not self.states or self.states[-1] is not state:
            self.states.append(state)
        shards = self.iterations.shards(found[0].id) if found else []
        for shard in shards:
            piece = shard.index, shard.range.lower
            before = self.positions.get(piece)
            if before is not None and (shard.position is None or shard.position < before):
                self.violations.append(f"promise 5: shard {piece} went back from {before} to {shard.position}")
            if shard.position is not None:
                self.positions[piece] = shard.position
        self.check_ranges([shard.range for shard in shards if not shard.done])
        if self.on_error == "quarantine" and any(self.raised[key] < self.calls for key in self.quarantined()):
            self.violations.append("a row was quarantined that had not raised often enough")
        if self.requeues and self.faults:
            for task in self.queue.queued():
                if task.attempts >= GIVES_UP_AFTER:
                    self.tell(f"the queue gives up {task.name[-12:]}")
                    self.counts["queue gave up"] += 1
                    self.queue.remove(task)
                    if "-again-" in task.name or "-failed-" in task.name:
                        # the sweep does not see to these: they are shown as any other task
                        self.given_up.append(task)

    def check_ranges(self, ranges: list[KeyRange]) -> None:
        """Open ranges do not overlap."""
        edges = sorted((each.lower, each.upper, each.closed) for each in ranges if each.lower and each.upper)
        for (_, upper, closed), (lower, _, _) in pairwise(edges):
            if lower < upper or (closed and lower == upper):
                self.violations.append(f"open ranges overlap: {edges}")


class IterationProcess(Process):
    """A process with its own view of the iterations."""

    def __init__(self, name: str, world: World) -> None:
        super().__init__(name, world)
        self.iterations = FaultyIterationStore(self)
        self.alone: dict[int, Any] = {}
        """By shard, the row that the last attempt has found failing, until it calls any."""

    def enter(self) -> None:
        super().enter()
        routing._in_use.clear()
        routing._in_use[""] = self.iterations


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

    def acquire(self, iteration_id: str, index: int, generation: int, **kwargs: Any) -> Any:
        with self.process.call("iteration acquire"):
            acquired = self.inner.acquire(iteration_id, index, generation, **kwargs)
        if acquired is not None and acquired[1].generation != generation:
            late = f"a task of generation {generation} took shard {index} from generation {acquired[1].generation}"
            self.process.world.violations.append(f"promise 5: {late}")
        if acquired is not None and acquired[1].attempts:
            self.process.alone[index] = acquired[1].failing[0]
        return acquired

    def divide(self, shard: Any, ranges: Any, **kwargs: Any) -> Any:
        world = self.process.world
        with self.process.call("iteration divide", after=not self.in_transaction()):
            shards = self.inner.divide(shard, ranges, **kwargs)
        for each in (shards or [])[1:]:
            world.counts[GIVEN] += 1
            world.tell(f"{self.process.name}: shard {shard.index} gives {each.range} to {each.index}")
        return shards

    def transaction(self) -> AbstractContextManager[Any]:
        store = self.process.config.the_store
        assert isinstance(store, FaultyStore)
        return store.transaction()

    def in_transaction(self) -> bool:
        return self.inner.in_transaction()


class Unreadable(Exception):
    """What a row raises that cannot be read."""


class SomeUnreadable(MemoryRows):
    """The rows of the world, some of which cannot be read."""

    def page(self, within: KeyRange, after: Any) -> Iterator[Any]:
        for row in super().page(within, after):
            yield self._read(row)

    def _read(self, row: str) -> str:
        key = key_of(row)
        if key in IterationWorld.current.unreadable and IterationWorld.current.is_to_raise(key):
            raise Unreadable(key)
        return row

    def is_of_row(self, error: Exception) -> bool:
        return isinstance(error, Unreadable)

    def find(self, key: Any) -> Any:
        row = super().find(key)
        return None if row is None else self._read(row)


def rows() -> MemoryRows:
    """The source of the iteration."""
    return SomeUnreadable(IterationWorld.current.rows, page=8)


def key_of(row: str) -> int:
    """The key of a row."""
    return int(row.removeprefix("row ")) * 3


def callback(row: str, note: str) -> None:
    """Passes a row."""
    assert note == "note"
    tried(row)
    passed(row)


def batch_callback(batch: list[str], note: str) -> None:
    """Passes rows: what raises for one leaves nothing of the others."""
    assert note == "note"
    world = IterationWorld.current
    process, shard = _process(world), current_shard()
    assert isinstance(process, IterationProcess) and shard is not None
    if process.alone.pop(shard.index, None) == key_of(batch[0]) and len(batch) > 1:
        world.violations.append(f"the row {key_of(batch[0])} has raised, and comes again with {len(batch) - 1} others")
    if not world.batch or len(batch) > world.batch:
        world.violations.append(f"a list of {len(batch)} rows")
    for row in batch:
        tried(row)
    for row in batch:
        passed(row)


def tried(row: str) -> None:
    """Takes its time, may be killed, may raise."""
    world = IterationWorld.current
    key = key_of(row)
    if world.slow_from is None:
        world.now += world.random.choice([0.0, 0.5, 4.0])
    else:
        world.now += 4.0 if key >= world.slow_from else 0.1
    if world.chance(0.5):
        try:
            with _process(world).call(f"callback {key}", writes=False):
                pass
        except DatabaseError:
            world.raised[key] += 1
            raise
    if key in world.poison and world.is_to_raise(key):
        raise ValueError(key)
    if world.faults and world.chance(0.02):
        raise TimeoutException


def passed(row: str) -> None:
    """Notes the row, and counts it."""
    world, key = IterationWorld.current, key_of(row)
    if world.limit is not None and not world.resumed and sorted(world.rows).index(key) >= world.limit:
        world.violations.append(f"row {key} was passed in a trial of {world.limit} rows")
    shard, iteration = current_shard(), current_iteration()
    assert shard is not None and iteration is not None
    world.passed[key] += iteration.created == world.run_of
    shard.count("rows")
    shard.collect("keys", key)


def throttle() -> float | None:
    """How long a shard has to wait: not at all, as long as a worker waits, or longer."""
    world = IterationWorld.current
    with _process(world).call("throttle", writes=False):
        return world.random.choice([None, 0, 2, 30]) if world.faults else None


def on_failed(note: str) -> None:
    """The news that the iteration has failed or is held."""
    world = IterationWorld.current
    iteration = current_iteration()
    assert iteration is not None and note == "note"
    if iteration.state not in (IterationState.FAILED, IterationState.HELD):
        world.violations.append(f"on_failed was called of an iteration that is {iteration.state}")
    with _process(world).call("on_failed", writes=False):
        pass
    world.told.add(iteration.generation)


def finalize(note: str) -> None:
    """The end: every row must have been passed by now."""
    world = IterationWorld.current
    world.finalized += 1
    iteration = current_iteration()
    assert iteration is not None
    is_judged = iteration.created == world.run_of
    if is_judged:
        world.counters = dict(iteration.counters)
    quarantined = world.quarantined()
    left = [key for key in world.rows if not world.passed[key] and key not in quarantined]
    if left and is_judged:
        world.violations.append(f"promise 4: finalize ran while rows {left} had not been passed")
    with _process(world).call("finalize", writes=False):
        pass
    if world.faults and world.chance(0.2):
        raise ValueError("finalize")
    world.succeeded += iteration.created == world.run_of


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
        callback if world.batch is None else batch_callback,
        finalize,
        ["note"],
        _shards=world.random.randint(1, 4),
        _delete_marker=None if world.named else not world.kept,
        _name="walk" if world.named else None,
        _dispatch_deadline=20.0,
        _batch=world.batch,
        _on_error=world.on_error,
        _max_attempts=None if world.on_error == "retry" else world.calls,
        _on_failed=on_failed if world.on_error == "fail" else None,
        _throttle=throttle if world.throttled else None,
        _max_rows_per_second=2.0 if world.paced else None,
        _limit=world.limit,
    )
    if how == "outside":
        world.handle = handle = start()
        world.committed.add("iteration")
        world.begun += handle.begun
        return
    try:
        with store.transaction():
            store.note("iteration")
            world.handle = handle = start()
            if how == "rollback":
                raise KeyError
        world.begun += handle.begun
    except KeyError:
        world.tell("the call is rolled back")


def control(world: IterationWorld) -> None:
    """A person pauses the iteration, and resumes it later; or calls quarantined rows again, mended or not."""
    if world.handle is None:
        return
    if world.on_error == "quarantine" and world.chance(0.8):
        world.counts["quarantined rows called again"] += 1
        world.mended = world.mended or world.chance(0.5)
        world.handle.retry_quarantined()
        return
    if world.named and "iteration" in world.committed and world.on_error == "retry" and world.chance(0.6):
        world.renewals += 1
        world.counts["begun anew"] += 1
        begin_anew(world)
        return
    world.counts["paused"] += 1
    try:
        world.handle.pause()
    finally:
        world.now += world.random.choice([1, 30])
        world.resumed = True
        world.handle.resume()


def begin_anew(world: IterationWorld) -> None:
    """A person cancels an iteration, and begins another one of its name, whatever the old one is still doing."""
    assert world.handle is not None
    world.handle.cancel()
    world.now += 1
    world.handle.forget()
    begin(world, "outside")


def simulate(seed: int, *, faults: float = 0.06) -> IterationWorld:
    """Run one schedule to its rest, and return the world with the violations that the oracle found."""
    world = IterationWorld(seed, faults=faults)
    how = world.random.choice(["outside", "commit", "commit", "rollback"])
    with world.ruling(), routing.in_use(), mock.patch.object(timing, "sleep", world.sleep):
        sweep._sweepers.pop("requeued", None)
        world.start("call", functools.partial(begin, world, how))
        if world.named and how != "rollback":
            world.start("the same call", functools.partial(begin, world, "outside"))
        longer = 3 if world.on_error == "quarantine" else 1  # rows are set aside before they can be called again
        for _ in range(world.random.randint(8, 30) * longer):
            disturb(world)
            if world.chance(0.4):
                world.run()
        world.run()
        rest(world)
        world.bring_late()
        settle(world)
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
    elif world.chance(0.8 if world.on_error == "quarantine" else 0.5 if world.named else 0.1):
        world.start("person", functools.partial(control, world))


def sweep_once(world: IterationWorld) -> None:
    """The sweep, and in half of the schedules the waking that it does."""
    sweep.sweep()
    if world.requeues:
        world.counts["requeued"] += requeue_stalled(all_schedulers(), None)


def rest(world: IterationWorld) -> None:
    """Faults cease; sweeps and workers go on until nothing is left to do. What stopped is resumed, mended; rows that
    are set aside then are called again. Tasks that the queue gave up, and the sweep does not requeue, are re-run."""
    world.tell("--- faults cease")
    world.faults = world.outage = 0.0
    world.queue.tasks.update({(task.message.routing.queue, task.name): task for task in world.given_up})
    handle = world.handle if "iteration" in world.committed else None
    if world.on_error == "fail":
        settle(world)
        judge_news(world)
    if world.renewals and all(each.state is IterationState.CANCELLED for each in world.iterations.list()):
        world.start("a person begins anew", functools.partial(begin_anew, world))
        world.run()
    resume_and_settle(world)
    if handle is None or world.on_error == "retry":
        return
    world.mended, world.aside = True, world.quarantined()
    if world.aside:
        world.start("a person calls rows again", handle.retry_quarantined)
        world.run()
    resume_and_settle(world)


def judge_trial(world: IterationWorld) -> None:
    """An iteration that nobody has touched stops after its trial, if there are more rows."""
    states = [each.state for each in world.iterations.list()]
    if world.limit is not None and not world.resumed and states and states[0] is not IterationState.FAILED:
        world.counts[TRIAL] += 1
        wanted = IterationState.PAUSED if world.limit < len(world.rows) else IterationState.DONE
        if states != [wanted]:
            world.violations.append(f"after a trial of {world.limit} of {len(world.rows)} rows, it is {states}")


def judge_news(world: IterationWorld) -> None:
    """Somebody was told of an iteration that has failed."""
    for each in world.iterations.list():
        if each.state is IterationState.FAILED:
            world.counts[FAILED] += 1
            if each.generation not in world.told:
                world.violations.append(f"nobody was told of the failure in generation {each.generation}")


def resume_and_settle(world: IterationWorld) -> None:
    """A person resumes what has stopped; what stops after its trial, once more."""
    for _ in range(1 if world.limit is None else 2):
        resume_once(world)


def resume_once(world: IterationWorld) -> None:
    if world.handle is not None and "iteration" in world.committed:
        settle(world)
        judge_trial(world)
        world.resumed = True
        world.start("a person resumes", world.handle.resume)
        world.run()
    settle(world)


def settle(world: IterationWorld) -> None:
    """Until nothing is left to do."""
    for _ in range(200):
        world.now += 700
        world.start("sweep", functools.partial(sweep_once, world))
        world.run()
        for task in world.queue.queued():
            world.start(f"worker on {task.name[-12:]}", functools.partial(world.deliver, task))
        world.run()
        over = all(each.state.is_over or each.state in STOPPED for each in world.iterations.list())
        if not world.queue.queued() and not world.store.count(State.PENDING) and (over or not world.requeues):
            return
    world.violations.append("the system does not come to rest")


def judge(world: IterationWorld, how: str) -> None:
    """The oracle: promises 2 to 6."""
    find = world.violations.append
    if how == "rollback" or "iteration" not in world.committed:
        if how == "rollback" and (world.passed or world.finalized or world.iterations.list()):
            find("promise 2: an iteration was rolled back and ran")
        return
    if world.quarantined():
        find(f"rows {world.quarantined()} are set aside that were mended and called again")
    for key in world.rows:
        if not world.passed[key]:
            find(f"promise 3: row {key} was skipped")
    if not world.succeeded:
        find("promise 4: finalize was lost")
    entries = [at for at, state in enumerate(world.states) if state is IterationState.FINALIZING]
    again = [at for at in entries[1:] if world.states[at - 1] not in STOPPED]
    if not entries or again:
        find(f"promise 4: finalize was recorded {len(again) + bool(entries)} times")
    if world.begun > 1 + world.renewals + (world.counts["begun anew"] > 0):
        find(f"an iteration of one name was begun {world.begun} times")
    _judge_counters(world)
    faults = [what for what, count in world.counts.items() if count and what not in (GIVEN, FAILED, TRIAL)]
    if not faults and any(count != 1 for count in world.passed.values()):
        find("promise 3: a row was passed twice in a schedule without faults")
    _judge_marker(world)


def _judge_counters(world: IterationWorld) -> None:
    """What finalize found, where it came after the last row; and what is kept at the end, which is all."""
    found = [each.counters.get("rows", 0) for each in world.iterations.list()]
    if not world.counts["quarantined rows called again"]:
        found.append(world.counters.get("rows", 0) + len(world.aside))
    if any(rows != len(world.rows) for rows in found):
        world.violations.append(f"the counters say {found} rows of {len(world.rows)}")
    for each in world.iterations.list():
        if world.rows and set(each.counters["keys"].values) != set(world.rows):
            world.violations.append(f"the counters know {each.counters['keys']} of {list(world.rows)}")


def _judge_marker(world: IterationWorld) -> None:
    kept = [each.state for each in world.iterations.list()]
    wanted = world.kept or bool(world.quarantined())
    if kept != [IterationState.DONE] * wanted:
        world.violations.append(f"the marker is {kept}, and it was{'' if wanted else ' not'} to be kept")
    # calls of rows set aside, and news, are shown as failing, also if that one has succeeded at last could not be noted
    done = [
        record
        for record in world.store.records.values()
        if record.state is not State.DEAD
        and not (record.state is State.FAILING and record.label.endswith(("run_quarantined", "run_failed")))
    ]
    if done:
        world.violations.append(f"records were left over: {[record.id for record in done]}")
