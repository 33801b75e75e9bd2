"""Schedules of plain tasks: requests that defer, transactions that commit or roll back, workers, sweeps, an operator.

The oracle knows what was returned and what committed, and checks promises 1, 2 and 6 once the system has come to rest.
"""

from __future__ import annotations

import functools
from collections import Counter

from defer_core import PermanentTaskFailure, SingularTaskFailure, codec, config, dead, defer, sweep
from defer_core.envelope import decode
from defer_core.record import State

from .world import DatabaseError, FaultyStore, World

SETTINGS = {"sweep_grace": 2.0, "name_window": 40.0, "inline_limit": 1024, "grace": 300.0, "dead_retention": 0.0}
KINDS = ("good", "good", "good", "permanent", "singular", "flaky")


class TaskWorld(World):
    """A world that knows of each business id what became of it."""

    current: TaskWorld

    def __init__(self, seed: int, *, faults: float = 0.1) -> None:
        super().__init__(seed, faults=faults, settings=SETTINGS)
        TaskWorld.current = self
        self.kinds: dict[str, str] = {}
        self.returned: set[str] = set()
        """Tasks whose `defer()` returned outside a transaction."""
        self.rolled_back: set[str] = set()
        """Tasks whose transaction is known to have rolled back."""
        self.executed: Counter[str] = Counter()
        """Calls that ran to their end."""
        self.attempts: Counter[str] = Counter()
        self.dead: dict[str, str] = {}
        """Record ids that were dead letters at the last look; of Claims with their business id."""
        self.rerun: dict[str, tuple[str, int]] = {}
        """By record id: business id, and its attempts when a person re-ran it."""

    def check(self) -> None:
        """A dead letter goes only where a person re-runs it, or where a late delivery of its Claim finishes it."""
        records = self.store._records
        for record_id, business_id in self.dead.items():
            if record_id not in records and record_id not in self.rerun and not self.executed[business_id]:
                self.violations.append(f"the dead letter {record_id} has vanished")
        letters = [record for record in records.values() if record.state is State.DEAD]
        self.dead = {each.id: business_of(self, each.id) if each.is_claim else "" for each in letters}


def work(business_id: str, kind: str, padding: bytes) -> None:
    """The deferred function."""
    world = TaskWorld.current
    world.attempts[business_id] += 1
    first = world.attempts[business_id] <= 1
    if kind == "permanent":
        raise PermanentTaskFailure(business_id)
    if kind == "singular" and first:
        raise SingularTaskFailure(business_id)
    if kind == "flaky" and first:
        raise ValueError(business_id)
    world.executed[business_id] += 1


def serve(world: TaskWorld, number: int) -> None:
    """A process of the site, which serves a few requests one after the other; an error ends the request only."""
    for turn in range(world.random.randint(1, 5)):
        try:
            request(world, f"b{number}.{turn}")
        except Exception as error:
            world.tell(f"request b{number}.{turn}: {type(error).__name__}")
        world.now += world.random.choice([0, 0, 20, 70])


def request(world: TaskWorld, business_id: str) -> None:
    """One request: it defers one task, in one of the ways there are."""
    choose = world.random.choice
    kind = world.kinds[business_id] = choose(KINDS)
    padding = world.random.randbytes(choose([10, 10, 3000]))
    call = functools.partial(defer, work, business_id, kind, padding)
    how = choose(["plain", "plain", "small", "commit", "commit", "commit", "rollback", "savepoint", "independent"])
    store = config.current().the_store
    assert isinstance(store, FaultyStore)
    if how == "plain" or (how == "small" and len(padding) < 1000):
        call(_small_task=how == "small")
        world.returned.add(business_id)
    elif how == "independent" and len(padding) < 1000:
        with store.transaction():
            call(_transactional=False)
            world.returned.add(business_id)
    elif how in ("rollback", "savepoint"):
        roll_back(world, business_id, call, store, nested=how == "savepoint")
    else:
        with store.transaction():
            store.note(business_id)
            call()


def roll_back(
    world: TaskWorld, business_id: str, call: functools.partial[object], store: FaultyStore, *, nested: bool
) -> None:
    """A transaction, or one nested in a transaction that commits, that is rolled back after its defer."""
    if nested:
        with store.transaction():
            roll_back(world, business_id, call, store, nested=False)
            defer(work, f"{business_id}-outer", "good", b"")
            world.kinds[f"{business_id}-outer"] = "good"
            store.note(f"{business_id}-outer")
        return
    world.rolled_back.add(business_id)
    try:
        with store.transaction():
            call()
            raise KeyError
    except KeyError:
        pass


def operate(world: TaskWorld) -> None:
    """A person re-runs a dead letter."""
    store = config.current().the_store
    assert store is not None
    letters = [record for record in world.store.list(State.DEAD) if business_of(world, record.id)]
    if letters:
        letter = world.random.choice(letters)
        business_id = business_of(world, letter.id)
        before, ours = world.rerun.get(letter.id), (business_id, world.attempts[business_id])
        world.rerun[letter.id] = ours
        world.tell(f"a person re-runs {letter.id[:10]} ({business_id})")
        try:
            dead.rerun(letter.id, store)
        except KeyError:  # a late delivery has finished it, or somebody else re-runs it: nothing came of this
            if world.rerun.get(letter.id) is ours:
                world.rerun.pop(letter.id) if before is None else world.rerun.update({letter.id: before})
            raise


def business_of(world: TaskWorld, record_id: str) -> str:
    """The business id in a record, or nothing."""
    record = world.store._records[record_id]
    sealed = decode(record.envelope)
    payload = sealed.payload or record.payload
    return codec.unpack(payload)[1][0] if payload else ""


def simulate(seed: int, *, faults: float = 0.1) -> TaskWorld:
    """Run one schedule to its rest, and return the world with the violations that the oracle found."""
    world = TaskWorld(seed, faults=faults)
    with world.ruling():
        for number in range(world.random.randint(3, 8)):
            world.start(f"server {number}", functools.partial(serve, world, number))
            disturb(world)
        for _ in range(world.random.randint(4, 12)):
            disturb(world)
            if world.chance(0.4):
                world.run()
        world.run()
        rest(world)
        judge(world)
    return world


def disturb(world: TaskWorld) -> None:
    """Something else happens: time passes, a worker, a sweep or a person comes."""
    happening = world.random.choice(["time", "worker", "worker", "worker", "sweep", "sweep", "person"])
    if happening == "time":
        world.now += world.random.choice([1, 3, 30, 130])
    elif happening == "worker":
        world.start_delivery()
    elif happening == "sweep":
        world.start("sweep", functools.partial(sweep_now_and_then, world))
    elif world.chance(0.3):
        world.start("person", functools.partial(operate, world))


def sweep_now_and_then(world: TaskWorld) -> None:
    """A process that sweeps a few times."""
    for _ in range(world.random.randint(1, 3)):
        try:
            sweep.sweep()
        except DatabaseError:
            world.tell("the sweep failed")
        world.now += world.random.choice([0, 30, 70])


def rest(world: TaskWorld) -> None:
    """Faults cease; sweeps and workers go on until nothing is left to do."""
    world.tell("--- faults cease")
    world.faults = 0.0
    for _ in range(40):
        world.now += 130
        world.start("sweep", sweep.sweep)
        world.run()
        for task in world.queue.queued():
            world.start(f"worker on {task.name[:10]}", functools.partial(world.deliver, task))
        world.run()
        if not world.queue.queued() and not world.store.count(State.PENDING):
            return
    world.violations.append("the system does not come to rest")


def judge(world: TaskWorld) -> None:
    """The oracle: promises 1, 2 and 6, and that nothing is left over."""
    dead_ids = {each.id for each in world.store.list(State.DEAD, limit=1000)}
    letters = {business_of(world, each) for each in dead_ids}
    for business_id in sorted(world.returned | world.committed):
        if not world.executed[business_id] and business_id not in letters:
            world.violations.append(f"promise 1: {business_id} ({world.kinds[business_id]}) was lost")
    for business_id in sorted(world.rolled_back - world.returned):
        if world.attempts[business_id]:
            world.violations.append(f"promise 2: {business_id} was rolled back and ran")
    for record_id, (business_id, attempts) in world.rerun.items():
        if world.attempts[business_id] <= attempts and record_id not in dead_ids:
            world.violations.append(f"promise 1: the re-run of {business_id} was lost")
    for body, names in world.bodies.items():
        if len(names) > 1 and not world.rerun:
            world.violations.append(f"one record was queued under {len(names)} names ({len(body)} bytes)")
    left = [record.id for record in world.store.records.values() if record.state is not State.DEAD]
    if left:
        world.violations.append(f"records were left over: {left}")
