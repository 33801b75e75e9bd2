"""A world of simulated processes over one database and one queue, with faults injected at every seam call, by seed.

The code that runs is the real one: send path, run path, sweep, handler and iteration. Simulated are the time, the
processes (greenlets, which change over at seam calls) and what fails. A process that crashes stops at a seam call,
before or after its effect; its transaction is rolled back, its memory is gone.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar
from unittest import mock

import greenlet

from defer_core import clock, config
from defer_core.config import active
from defer_core.errors import AmbiguousSendError, TransportUnavailableError
from defer_core.record import State, TaskRecord
from defer_core.stores.base import ForgetList, TaskStore
from defer_core.stores.memory import MemoryStore
from defer_core.transports.base import Message, Transport
from defer_core.transports.memory import MemoryTransport, QueuedTask
from defer_gae_handler import Authenticator, Request, handle

HELD_UP = 130.0
"""Seconds that a slow call takes: longer than a lease."""


class Crash(BaseException):
    """The process has been killed."""


class DatabaseError(Exception):
    """The other side gave no answer, or a wrong one."""


class World:
    """One schedule. What happens is decided by `seed` alone."""

    @property
    def process_type(self) -> type[Process]:
        """What `start` makes."""
        return Process

    slow: ClassVar[float] = 0.0
    """The chance that a seam call takes longer than any lease."""
    name_lifetime: ClassVar[float] = 4000.0
    """Seconds after which the queue forgets the name of a task that is gone: longer than any `name_window`."""

    def __init__(self, seed: int, *, faults: float = 0.1, settings: dict[str, Any] | None = None) -> None:
        self.random = random.Random(seed)
        self.now = 1_800_000_000.0
        self.faults = faults
        self.outage = self.random.choice([faults, faults, 0.5]) if faults else 0.0
        """The chance that a send gets no answer."""
        self.settings = settings or {}
        self.store = MemoryStore()
        self.store.wait = _let_others_run
        self.queue = ForgetfulQueue(self.name_lifetime)
        self.delivered: list[QueuedTask] = []
        """Tasks that were answered 2xx, which a faulty queue may deliver again."""
        self.late: list[QueuedTask] = []
        """Tasks whose answers were lost, and that the queue will deliver again at last."""
        self.delivering: set[str] = set()
        """The tasks that workers have been started on since the last rest."""
        self.runnable: list[tuple[greenlet.greenlet, Process]] = []
        self.committed: set[str] = set()
        """What transactions have noted and committed."""
        self.bodies: dict[bytes, set[str]] = {}
        """The names under which each body was queued."""
        self.story: list[str] = []
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        """What the oracle found."""

    @contextmanager
    def ruling(self) -> Iterator[None]:
        """Time, ids and configuration are this world's; an error of the oracle itself is a violation, too."""
        ids = mock.patch("os.urandom", side_effect=self.random.randbytes)
        with clock.replaced(lambda: self.now), ids, config.configured():
            try:
                yield
            except Exception as error:
                self.violations.append(f"{type(error).__name__}: {error}")

    def check(self) -> None:
        """Look for what must never be, after each step."""

    def check_sent(self, message: Message) -> None:
        """Look for what must not be sent, once the queue has taken it."""

    def tell(self, text: str) -> None:
        """Add a line to the story."""
        self.story.append(f"{self.now - 1_800_000_000:9.1f}  {text}")

    def chance(self, probability: float) -> bool:
        """Whether something happens."""
        return self.random.random() < probability

    def start(self, name: str, work: Callable[[], object]) -> None:
        """Start a process, whose memory is its own."""
        process = self.process_type(name, self)

        def body() -> None:
            try:
                work()
            except Crash:
                self.tell(f"{name}: is dead")
            except Exception as error:
                self.tell(f"{name}: {type(error).__name__}: {error}")

        self.runnable.append((greenlet.greenlet(body), process))

    def run(self) -> None:
        """Run every started process to its end, changing over at seam calls."""
        hub = greenlet.getcurrent()
        while self.runnable:
            index = self.random.randrange(len(self.runnable))
            let, process = self.runnable[index]
            let.parent = hub
            process.enter()
            let.switch()
            self.now += self.random.random() * 0.2
            self.check()
            if let.dead:
                self.runnable.remove((let, process))
        self.delivering.clear()

    def deliver(self, task: QueuedTask) -> None:
        """One delivery, as a queue makes it: 2xx takes the task out, all else leaves it for later."""
        key = (task.message.routing.queue, task.name)
        if key in self.queue.tasks:
            self.queue.retry(self.queue.tasks[key])
        status: int | None = None
        store = config.current().the_store
        process = store.process if isinstance(store, FaultyStore) else None
        try:
            status = handle(_request(task)).status
            if process is not None:
                process.answered = 200 <= status < 300
        finally:
            self.tell(f"  {task.name[:10]}: {status or 'no answer'}")
        if 200 <= status < 300:
            if self.faults and self.chance(0.1):
                self.lose_answer(task)
            else:
                self.queue.remove(task)
                self.delivered.append(task)

    def lose_answer(self, task: QueuedTask) -> None:
        """The queue does not learn that a task is done, and will deliver it again, soon or late."""
        self.counts["answer lost"] += 1
        if self.chance(0.5):
            self.counts["answer lost for long"] += 1
            again = self.queue.tasks.pop((task.message.routing.queue, task.name), None)
            self.late += [again] if again else []

    def bring_late(self) -> None:
        """What had been delivered long ago comes again, when all is quiet."""
        self.now += self.random.choice([100, 500, 5000])
        for task in self.late:
            self.queue.tasks[task.message.routing.queue, task.name] = task
        self.late.clear()

    def start_delivery(self, *, late: bool = True) -> None:
        """A worker that delivers a task: one that is due, or sometimes one that is not, or that has been done."""
        tasks = self.queue.queued()
        if late and self.delivered and self.faults and self.chance(0.1):
            self.counts["delivered again"] += 1
            tasks = self.delivered
        if tasks:
            task = self.random.choice(tasks)
            if task.name in self.delivering:
                self.counts["delivered at once"] += 1
            self.delivering.add(task.name)
            self.start(f"worker on {task.name[:10]}", lambda: self.deliver(task))


class ForgetfulQueue(MemoryTransport):
    """Refuses a name for as long as its task is there, and for a time after; as real queues do."""

    def __init__(self, lifetime: float) -> None:
        super().__init__()
        self.lifetime = lifetime
        self.gone: dict[tuple[str, str | None], float] = {}
        """When the task of a name was taken out."""

    def send(self, message: Message) -> str:
        key = (message.routing.queue, message.routing.name)
        if key in self.gone and clock.now() - self.gone[key] > self.lifetime:
            del self.gone[key]
            self._names.discard(key)  # type: ignore[arg-type]
        return super().send(message)

    def remove(self, task: QueuedTask) -> None:
        super().remove(task)
        self.gone[task.message.routing.queue, task.name] = clock.now()


def _let_others_run() -> None:
    parent = greenlet.getcurrent().parent
    if parent is not None:
        parent.switch()


class AcceptAll(Authenticator):
    """Lets everybody in."""

    name: ClassVar[str] = "open"
    target: ClassVar[str] = "appengine"

    def accepts(self, request: Request) -> bool:
        return True


def _request(task: QueuedTask) -> Request:
    headers = {
        "Content-Length": str(len(task.message.body)),
        "X-AppEngine-QueueName": task.message.routing.queue,
        "X-AppEngine-TaskName": task.name,
        "X-AppEngine-TaskRetryCount": str(task.attempts),
        "X-AppEngine-TaskExecutionCount": str(task.attempts),
        "X-AppEngine-TaskETA": f"{task.due:.6f}",
    }
    path = task.message.routing.url or "/"
    return Request(method="POST", path=path, headers=headers, read=lambda size: task.message.body)


class Process:
    """A process: its own configuration, its own memory of what it may forget; once crashed it does nothing more."""

    def __init__(self, name: str, world: World) -> None:
        self.name, self.world, self.crashed = name, world, False
        self.faults = 0
        """How many faults it has met."""
        self.answered = False
        """Whether the task that it was to run is done."""
        store = FaultyStore(self)
        self.config = config.Config(
            transport=FaultyTransport(self),
            store=store,
            sweep_interval=0.0,
            authenticators=[AcceptAll()],
            **world.settings,
        )

    def enter(self) -> None:
        """The processor is this process's: so is what a process has globally."""
        active._explicit = self.config

    def pause(self) -> None:
        """Let other processes run. A dead one does nothing more."""
        let = greenlet.getcurrent()
        if let.parent is not None:
            let.parent.switch()
        if self.crashed:
            raise Crash

    @contextmanager
    def call(self, what: str, *, writes: bool = True, before: bool = True, after: bool = True) -> Iterator[None]:
        """A seam call: another process may go first; then it may fail, before its effect or after it."""
        world = self.world
        if self.crashed:
            raise Crash
        self.pause()
        if world.faults and world.slow and world.chance(world.slow):
            world.counts["held up"] += 1
            world.now += HELD_UP
            self.pause()
        fault = self._fault(before=before, after=after)
        if fault == "crash before":
            self.crash(what, fault)
        if fault == "transient error":
            world.tell(f"{self.name}: {what} fails")
            raise DatabaseError(what)
        yield
        if fault == "crash after":
            self.crash(what, fault)
        if fault == "ambiguous error" and writes:
            world.tell(f"{self.name}: {what} fails, having been done")
            raise DatabaseError(what)

    def _fault(self, *, before: bool, after: bool) -> str | None:
        world = self.world
        if not world.faults or not world.chance(world.faults):
            return None
        faults = ["crash before", "transient error"] * before + ["crash after", "ambiguous error"] * after
        fault = world.random.choice(faults)
        world.counts[fault] += 1
        self.faults += 1
        return fault

    def crash(self, what: str, fault: str) -> None:
        """Die here."""
        self.world.tell(f"{self.name}: {fault} {what}")
        self.crashed = True
        raise Crash


class FaultyTransport(Transport):
    """The queue as a process sees it."""

    name: ClassVar[str] = "memory"

    def __init__(self, process: Process) -> None:
        self.process = process
        self.max_body = 2000  # type: ignore[misc]

    def send(self, message: Message) -> str:
        world = self.process.world
        try:
            if world.faults and world.chance(world.outage):
                world.counts["outage"] += 1
                self.process.faults += 1
                world.tell(f"{self.process.name}: no answer to {message.routing.name}")
                raise DatabaseError("outage")
            with self.process.call(f"send {message.routing.name or '?'}"):
                name = world.queue.send(message)
                world.check_sent(message)
                world.bodies.setdefault(message.body, set()).add(name)
                world.tell(f"{self.process.name}: sent {name[:10]}")
                return name
        except DatabaseError as error:
            taken = message.routing.name and (message.routing.queue, message.routing.name) in world.queue.tasks
            if not taken and world.chance(0.5):
                raise TransportUnavailableError from error
            raise AmbiguousSendError from error


class FaultyStore(TaskStore):
    """The database as a process sees it."""

    name: ClassVar[str] = "memory"

    def __init__(self, process: Process) -> None:
        self.process, self.inner = process, process.world.store
        self.forgotten = ForgetList()
        self.leases: dict[str, str] = {}
        """By record, what this process has leased."""
        self.notes: ContextVar[tuple[str, ...]] = ContextVar("notes", default=())

    def put(self, records: Sequence[TaskRecord], forget: Sequence[str] = ()) -> None:
        with self.process.call(f"put {', '.join(record.id[:10] for record in records)}"):
            self.inner.put(records, forget)

    def get(self, record_id: str) -> TaskRecord | None:
        with self.process.call(f"get {record_id[:10]}", writes=False):
            return self.inner.get(record_id)

    def delete(self, record_ids: Sequence[str], *, lease: str | None = None) -> int:
        with self.process.call(f"delete {', '.join(each[:10] for each in record_ids)}"):
            held = all(map(self._is_ours, record_ids))
            return self._only_if(held, self.inner.delete(record_ids, lease=lease), "deleted")

    def lease_due(self, *, now: float, limit: int, seconds: float, state: State = State.PENDING) -> list[TaskRecord]:
        with self.process.call(f"lease {state}"):
            leased = self.inner.lease_due(now=now, limit=limit, seconds=seconds, state=state)
            self.leases |= {record.id: record.lease for record in leased}
            return leased

    def _is_ours(self, record_id: str) -> bool:
        """Whether a sweep may change a record; whoever is no sweep may always, or is asked for the lease."""
        record = self.inner._records.get(record_id)
        return self.process.name != "sweep" or record is None or record.lease == self.leases.get(record_id, "")

    def _only_if(self, held: bool, done: Any, what: str) -> Any:
        if done and not held:
            self.process.world.violations.append(f"a sweep has {what} a record that it did not hold any more")
        return done

    def mark(self, record_id: str, *, lease: str, new_lease: str = "", **changes: Any) -> bool:
        with self.process.call(f"mark {record_id[:10]} {changes.get('state', '')}"):
            held = self._is_ours(record_id)
            return self._only_if(
                held, self.inner.mark(record_id, lease=lease, new_lease=new_lease, **changes), "changed"
            )

    def list(self, *args: Any, **kwargs: Any) -> list[TaskRecord]:
        with self.process.call("list", writes=False):
            return self.inner.list(*args, **kwargs)

    def count(self, *args: Any, **kwargs: Any) -> int:
        return self.inner.count(*args, **kwargs)

    def count_unverified(self) -> int:
        return self.inner.count_unverified()

    def count_dead(self, since: float) -> int:
        return self.inner.count_dead(since)

    def expire(self, before: float, *, limit: int) -> int:
        with self.process.call("expire"):
            return self.inner.expire(before, limit=limit)

    def oldest_pending(self) -> float | None:
        return self.inner.oldest_pending()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        outermost = not self.inner.in_transaction()
        if outermost:
            self.notes.set(())
        with self.inner.transaction():
            if outermost:
                self.inner.on_commit(self._committed)
            yield
            if outermost:
                with self.process.call("commit", writes=False, after=False):
                    pass

    def note(self, text: str) -> None:
        """Write a row of the user's own in the open transaction: the oracle learns of it by the commit."""
        self.notes.set((*self.notes.get(), text))

    def _committed(self) -> None:
        """The first hook: what was noted is true now, and the process may die or lose the answer before the others."""
        self.process.world.committed.update(self.notes.get())
        with self.process.call("answer of commit", before=False):
            pass

    def in_transaction(self) -> bool:
        return self.inner.in_transaction()

    def on_commit(self, func: Callable[[], object]) -> None:
        self.inner.on_commit(func)
