"""The tasks that a test has deferred: decoded, checked and run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, overload

from ..config import current
from ..delivery import Delivery
from ..errors import SingularTaskFailure
from ..run.decode import decode_body
from ..run.execute import Outcome
from ..transports.memory import MemoryTransport, QueuedTask
from .queue import drain, memory_transport, queued, run_one


class _Any:
    """Equal to everything, like `unittest.mock.ANY`, which works as well."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "ANY"


ANY: Any = _Any()


@dataclass(frozen=True, kw_only=True)
class CalledTask:
    """A deferred task, decoded."""

    func: Callable[..., Any]
    """The callable that it calls."""
    args: tuple[Any, ...] = ()
    """Its positional arguments."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Its keyword arguments."""
    queue: str = "default"
    """The queue's short name."""
    eta: datetime | None = None
    """When it is due, in UTC; None is at once."""
    name: str | None = None
    """The name that it was given, else that of its record, if it has one."""
    queued: QueuedTask = field(repr=False)
    """The task in the queue."""

    def __repr__(self) -> str:
        arguments = [*map(repr, self.args), *(f"{key}={value!r}" for key, value in self.kwargs.items())]
        options = {"queue": self.queue, "eta": self.eta and self.eta.isoformat()}
        shown = ", ".join(f"{key}={value!r}" for key, value in options.items() if value)
        return f"{_name(self.func)}({', '.join(arguments)})  [{shown}]"


class Deferred(Sequence[CalledTask]):
    """The tasks in the memory queue, in the order in which they are due; without those of transactions that are open or
    were rolled back. Raises ConfigError if the queue is not in memory."""

    @property
    def transport(self) -> MemoryTransport:
        """Queue that has them."""
        return memory_transport()

    def tasks(self, func: Callable[..., Any] | None = None) -> list[CalledTask]:
        """Return all of them, or those that call `func`."""
        tasks = [task for task in map(_decoded, queued(self.transport)) if task is not None]
        return [task for task in tasks if func is None or _is_same(task.func, func)]

    def __len__(self) -> int:
        return len(self.tasks())

    def __iter__(self) -> Iterator[CalledTask]:
        return iter(self.tasks())

    @overload
    def __getitem__(self, index: int) -> CalledTask: ...

    @overload
    def __getitem__(self, index: slice) -> list[CalledTask]: ...

    def __getitem__(self, index: int | slice) -> CalledTask | list[CalledTask]:
        return self.tasks()[index]

    def __repr__(self) -> str:
        return self._there()

    def assert_called(
        self,
        func: Callable[..., Any],
        *,
        args: Any = ANY,
        kwargs: Any = ANY,
        queue: Any = ANY,
        eta: Any = ANY,
        name: Any = ANY,
        times: int | None = None,
    ) -> CalledTask:
        """Assert that one task (or `times` tasks) calls `func` in this way; return the first. Arguments are compared as
        the function would get them, and anything may be ANY. Raises AssertionError, which lists the tasks."""
        __tracebackhide__ = True
        wanted = {"args": args, "kwargs": kwargs, "queue": queue, "eta": eta, "name": name}
        found = [
            task
            for task in self.tasks(func)
            if (queue, eta, name) == (task.queue, task.eta, task.name) and _is_called_so(task, args, kwargs)
        ]
        if found and times in (None, len(found)):
            return found[0]
        asked = ", ".join(f"{key}={value!r}" for key, value in wanted.items() if value is not ANY)
        often = "" if times is None else f" {times} times, but {len(found)}"
        raise AssertionError(f"{_name(func)} was not deferred{often}{asked and f' with {asked}'}. {self._there()}")

    def assert_not_called(self, func: Callable[..., Any] | None = None) -> None:
        """Assert that no task calls `func` (or that there is none at all). Raises AssertionError, which lists the
        tasks."""
        __tracebackhide__ = True
        if self.tasks(func):
            raise AssertionError(f"{_name(func) if func else 'Something'} was deferred. {self._there()}")

    def _there(self) -> str:
        return "\n  ".join(["There is:", *(map(repr, self.tasks()))]) if self else "There is nothing."

    def run(self, func: Callable[..., Any] | None = None, *, queue: str | None = None, max_attempts: int = 1) -> int:
        """Run what is queued (the calls of `func`, if given) and what that defers. Raises the first exception of a task
        that fails for the last time. Returns how many tasks were done."""
        spared = set() if func is None else {each.queued.name for each in self if not _is_same(each.func, func)}
        return drain(self.transport, queue=queue, max_attempts=max_attempts, spared=spared).done

    @contextmanager
    def eager(self) -> Iterator[None]:
        """Run each task in a `with` block as soon as it is in the queue, as under `immediate`: its exception is raised
        there. Those of a TestCase's transactions run when the block ends, at the latest."""
        transport = self.transport
        before, transport.on_arrival = transport.on_arrival, _run_now
        try:
            yield
            queued(transport)
        finally:
            transport.on_arrival = before

    def clear(self) -> None:
        """Forget all tasks, and the names that are taken."""
        self.transport.clear()


def _run_now(task: QueuedTask, transport: MemoryTransport) -> None:
    try:
        if run_one(task, transport) is Outcome.RETRY:
            raise SingularTaskFailure(f"The task {task.name} asked to be retried.")
    finally:
        transport.remove(task)


def _decoded(task: QueuedTask) -> CalledTask | None:
    routing = task.message.routing
    decoded = decode_body(task.message.body, Delivery(task_name=task.name, retry_count=0, target="memory"), current())
    if decoded is None:  # its payload was removed from the store
        return None
    func, args, kwargs = decoded.func, decoded.args, decoded.kwargs
    if getattr(func, "calls_its_first", False):  # a task of Django's
        func, args, kwargs = args[0], args[-2], args[-1]
    return CalledTask(
        func=func,
        args=tuple(args),
        kwargs=dict(kwargs),
        queue=routing.queue,
        eta=None if routing.eta is None else datetime.fromtimestamp(routing.eta, timezone.utc),
        name=routing.name,
        queued=task,
    )


def _called(func: Any) -> Any:
    """Return what a task calls in the end: a task of Django's is not callable itself."""
    return func if callable(func) else func.func


def _name(func: Any) -> str:
    return str(getattr(_called(func), "__qualname__", func))


def _is_same(one: Any, other: Any) -> bool:
    """Return True if two callables are one; methods of equal instances are."""
    return bool(_called(one) == _called(other))


def _is_called_so(task: CalledTask, args: Any, kwargs: Any) -> bool:
    """Return True if the function would get these arguments, whether they are given by position or by name."""
    if args is ANY and kwargs is ANY:
        return True
    ways = [(task.args if args is ANY else args, task.kwargs if kwargs is ANY else kwargs)]
    if args is ANY or kwargs is ANY:
        ways.append((() if args is ANY else args, {} if kwargs is ANY else kwargs))
    given = _bound(task.func, task.args, task.kwargs)
    return any(_bound(task.func, tuple(args), dict(kwargs)) == given for args, kwargs in ways)


def _bound(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return the arguments by parameter; as they are, if the call does not fit or there is no signature."""
    try:
        bound = inspect.signature(_called(func), follow_wrapped=False).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return args, dict(kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)
