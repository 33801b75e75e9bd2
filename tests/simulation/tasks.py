"""Schedules of plain tasks: requests that defer, transactions that commit or roll back, workers, sweeps, an operator.

The oracle knows what was returned and what committed, and checks promises 1, 2 and 6 once the system has come to rest.
"""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import replace

from defer_core import PermanentTaskFailure, SingularTaskFailure, config, defer
from defer_core.record import State
from defer_core.transports.base import Message
from defer_core.transports.memory import QueuedTask
from defer_core.upkeep import dead_letters, failing, sweep
from defer_core.wire import decoder
from defer_core.wire.envelope import decode

from .world import DatabaseError, FaultyStore, Process, World

SETTINGS = {"sweep_grace": 2.0, "name_window": 40.0, "inline_limit": 1024, "grace": 300.0, "dead_retention": 0.0}
KINDS = ("good", "good", "good", "permanent", "singular", "flaky", "hopeless")
ATTEMPTS = 3
"""After which the queue gives up a hopeless task, by its own retry options."""


class TaskWorld(World):
    """A world that knows of each business id what became of it."""

    current: TaskWorld
    slow = 0.02
    name_lifetime = 60.0

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
        self.taken: dict[str | None, float] = {}
        """When the queue has last taken a task of a name."""
        self.paddings: dict[str, bytes] = {}
        """What each was deferred with."""
        self.altered: dict[str, str] = {}
        """By record id: the business ids of those whose payload somebody has altered."""
        self.seen_to_fail: dict[str, int] = {}
        """By business id: the last attempt that failed with no fault around it, so that the store knows of it."""

    def check_sent(self, message: Message) -> None:
        """What may have been taken is not sent again once its name may be forgotten. (A sender that has died has told
        nobody: then the task may run twice.)"""
        name, before = message.routing.name, self.taken.get(message.routing.name, 0.0)
        for each in self.store._records.values():
            if each.routing.name == name and each.doubtful_since is not None and before >= each.doubtful_since - 1:
                self.violations.append(f"{name} was taken twice, though its first answer was doubtful")
        self.taken[name] = self.now

    def deliver(self, task: QueuedTask) -> None:
        """A queue that has tried a task as often as that allows gives it up, without a word."""
        process, failed = process_of(config.current()), ""
        try:
            super().deliver(task)
        except ValueError as error:
            failed = str(error)
            raise
        finally:
            given_up = self.give_up(task)
            alone = sum(other.name == process.name for _, other in self.runnable) == 1
            if failed and not process.faults:
                self.seen_to_fail[failed] = self.attempts[failed]
                if given_up and alone and task.attempts + 1 >= ATTEMPTS and failed not in dict(self.rerun.values()):
                    self.expect(task, {State.DEAD}, "was given up")
            elif not failed and not process.faults and alone and process.answered and task.attempts:
                self.expect(task, {None, State.DEAD}, "was done")

    def give_up(self, task: QueuedTask) -> bool:
        """Whether the queue takes a task out that has not been done."""
        queued = self.queue.tasks.get((task.message.routing.queue, task.name))
        retry = task.message.routing.retry
        if queued is None or retry is None or queued.attempts < (retry.max_attempts or 0):
            return False
        self.counts["given up"] += 1
        self.tell(f"the queue gives up {task.name[:10]}")
        self.queue.remove(queued)
        return True

    def expect(self, task: QueuedTask, states: set[State | None], what: str) -> None:
        """Look at what is kept of a task that nobody else is at."""
        found = {each.state for each in self.store._records.values() if each.routing.name == task.name}
        kept = found - {State.PENDING} or {None}
        if not kept <= states:
            self.violations.append(f"{task.name} {what}, and its record is {', '.join(map(str, kept))}")

    def check(self) -> None:
        """A dead letter goes only where a person re-runs it, or where a late delivery of its Claim finishes it."""
        records = self.store._records
        for record_id, business_id in self.dead.items():
            if record_id not in records and record_id not in self.rerun and not self.executed[business_id]:
                self.violations.append(f"the dead letter {record_id} has vanished")
        letters = [record for record in records.values() if record.state is State.DEAD]
        self.dead = {each.id: business_of(self, each.id) if each.is_claim_check else "" for each in letters}


def process_of(settings: config.Config) -> Process:
    """Whose turn it is."""
    store = settings.the_store
    assert isinstance(store, FaultyStore)
    return store.process


def work(business_id: str, kind: str, padding: bytes) -> None:
    """The deferred function."""
    world = TaskWorld.current
    world.attempts[business_id] += 1
    if padding != world.paddings[business_id]:
        world.violations.append(f"{business_id} ran with what nobody has deferred")
    first = world.attempts[business_id] <= 1
    if kind == "hopeless":
        raise ValueError(business_id)
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
    padding = world.paddings[business_id] = world.random.randbytes(choose([10, 10, 3000]))
    options = {"_retry_options": {"max_attempts": ATTEMPTS}} if kind == "hopeless" else {}
    call = functools.partial(defer, work, business_id, kind, padding, **options)
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
            world.kinds[f"{business_id}-outer"], world.paddings[f"{business_id}-outer"] = "good", b""
            defer(work, f"{business_id}-outer", "good", b"")
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
            dead_letters.rerun(letter.id, store)
        except BaseException:  # it was altered, a late delivery has finished it, or this transaction was rolled back
            again = any(business_of(world, each) == business_id for each in world.store._records if each != letter.id)
            if not again and world.rerun.get(letter.id) is ours:
                world.rerun.pop(letter.id) if before is None else world.rerun.update({letter.id: before})
            raise


def alter(world: TaskWorld) -> None:
    """A stray hand, or a bug in a database, changes a stored payload: at its beginning, in its middle, at its end."""
    stored = [each for each in world.store._records.values() if each.payload and each.id not in world.altered]
    if not stored:
        return
    record = world.random.choice(stored)
    world.altered[record.id] = business_of(world, record.id)
    payload = bytearray(record.payload or b"")
    where = world.random.choice([0, len(payload) // 2, len(payload) - 1])
    payload[where] ^= world.random.randint(1, 255)
    if world.chance(0.3):
        del payload[len(payload) // 2 :]
    world.store._records[record.id] = replace(record, payload=bytes(payload))
    world.counts["payload altered"] += 1
    world.tell(f"the payload of {record.id[:10]} ({world.altered[record.id]}) is altered at {where}")


def business_of(world: TaskWorld, record_id: str) -> str:
    """The business id in a record, or nothing."""
    if record_id in world.altered:
        return world.altered[record_id]
    record = world.store._records[record_id]
    sealed = decode(record.envelope)
    payload = sealed.payload or record.payload
    return decoder.unpack(payload)[1][0] if payload else ""


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
        world.bring_late()
        rest(world)
        keep_silent(world)
        judge(world)
    return world


def disturb(world: TaskWorld) -> None:
    """Something else happens: time passes, a worker, a sweep or a person comes."""
    happening = world.random.choice(["time", "worker", "worker", "worker", "sweep", "sweep", "person", "crowd"])
    if happening == "time":
        world.now += world.random.choice([1, 3, 30, 130])
    elif happening == "worker":
        world.start_delivery()
    elif happening == "crowd":
        crowd(world)
    elif happening == "sweep":
        world.start("sweep", functools.partial(sweep_now_and_then, world))
    elif world.chance(0.3):
        world.start("person", functools.partial(operate, world))
    elif world.chance(0.15):
        alter(world)


def crowd(world: TaskWorld) -> None:
    """All at once: every task is delivered while two sweep, after a while in which nobody has."""
    world.now += 3
    for task in world.queue.queued()[:4]:
        world.delivering.add(task.name)
        world.start(f"worker on {task.name[:10]}", functools.partial(world.deliver, task))
    for _ in range(2):
        world.start("sweep", functools.partial(sweep_now_and_then, world))


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


def keep_silent(world: TaskWorld) -> None:
    """A day goes by, and what has failed and was never heard of again is a dead letter."""
    world.now += 2 * 86400
    world.start("sweep", sweep.sweep)
    world.run()


def outlive_queues(world: TaskWorld) -> None:
    """So much time goes by that no queue can hold a task: what was dropped, and none of whose attempts could note
    anything, is a dead letter."""
    world.now += failing.LONGEST_IN_QUEUE
    world.start("sweep", sweep.sweep)
    world.run()


def was_given_up(world: TaskWorld, business_id: str) -> bool:
    """Whether a queue has given up a task of which no attempt since it was last sent could leave a record."""
    since = max((attempts for each, attempts in world.rerun.values() if each == business_id), default=0)
    hopeless = world.kinds[business_id] == "hopeless" and world.attempts[business_id] > since
    return hopeless and world.seen_to_fail.get(business_id, 0) <= since


def judge(world: TaskWorld) -> None:
    """The oracle: promises 1, 2 and 6, and that nothing is left over."""
    dead_ids = {each.id for each in world.store.list(State.DEAD, limit=1000)}
    letters = {business_of(world, each) for each in dead_ids}
    for business_id in sorted(world.returned | world.committed):
        if not world.executed[business_id] and business_id not in letters and not was_given_up(world, business_id):
            world.violations.append(f"promise 1: {business_id} ({world.kinds[business_id]}) was lost")
    for business_id in sorted(world.rolled_back - world.returned):
        if world.attempts[business_id]:
            world.violations.append(f"promise 2: {business_id} was rolled back and ran")
    for record_id, (business_id, attempts) in world.rerun.items():
        if world.attempts[business_id] <= attempts and business_id not in letters and record_id not in dead_ids:
            world.violations.append(f"promise 1: the re-run of {business_id} was lost")
    for body, names in world.bodies.items():
        if len(names) > 1 and not world.rerun:
            world.violations.append(f"one record was queued under {len(names)} names ({len(body)} bytes)")
    outlive_queues(world)
    left = [record.id for record in world.store.records.values() if record.state is not State.DEAD]
    if left:
        world.violations.append(f"records were left over: {left}")
