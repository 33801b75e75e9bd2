"""What a callback or `finalize` can ask about the iteration that calls it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field

from .model import counters
from .model.counters import Amount, Part
from .model.iteration import Iteration

DEFERRED_ITERATION_SHARD_INDEX_KEY = "DEFERRED_ITERATION_SHARD_INDEX"
"""The environment variable with the shard's index; with several shards at a time in a process, use
`get_deferred_shard_index()`."""


@dataclass(frozen=True, kw_only=True)
class CurrentShard:
    """The shard whose row is being passed to the callback."""

    index: int
    """Its number, from 0."""
    iteration_id: str
    """Its iteration."""
    counted: dict[str, Part] = field(default_factory=dict)
    """What the callback has counted for this row so far."""
    kinds: dict[str, str] = field(default_factory=dict)
    """By the name of each counter, the method that counts it."""

    def count(self, name: str, number: Amount = 1) -> None:
        """Add an int, a Decimal or a finite float to a counter of the iteration; the sum over all shards is
        `current_iteration().counters[name]` in `finalize`. Raise TypeError or ValueError for an amount that cannot be
        stored, and TypeError if `name` is counted by another method."""
        self._count("count", name, counters.checked(name, number))

    def least(self, name: str, number: Amount) -> None:
        """Keep the least number of all that are given under a name. Raise as `count` does."""
        self._count("least", name, ("least", counters.checked(name, number)))

    def most(self, name: str, number: Amount) -> None:
        """Keep the greatest number of all that are given under a name. Raise as `count` does."""
        self._count("most", name, ("most", counters.checked(name, number)))

    def collect(self, name: str, value: str | int, cap: int = 100) -> None:
        """Keep the set of the values that are given under a name, as a Collected: the least `cap` of them, and whether
        there were more. If a shard's counters would take more than 64 KB, fewer are kept. Raise as `count` does."""
        self._count("collect", name, ("collect", counters.collected(name, value, cap)))

    def _count(self, kind: str, name: str, part: Part) -> None:
        if self.kinds.setdefault(name, kind) != kind:
            raise TypeError(
                f"{kind}() cannot count {name!r}, which is counted by {self.kinds[name]}(): give it another name."
            )
        counters.count(self.counted, name, part)


_shard: ContextVar[CurrentShard | None] = ContextVar("defer_shard", default=None)
_iteration: ContextVar[Iteration | None] = ContextVar("defer_iteration", default=None)


def current_shard() -> CurrentShard | None:
    """Return the shard that is running here, or None outside a callback."""
    return _shard.get()


def current_iteration() -> Iteration | None:
    """Return the iteration that is running here, as it was when this task began; None outside its tasks."""
    return _iteration.get()


def get_deferred_shard_index() -> int | None:
    """Return the index of the shard that is running here, or None outside a callback."""
    shard = _shard.get()
    if shard is not None:
        return shard.index
    given = os.environ.get(DEFERRED_ITERATION_SHARD_INDEX_KEY)
    return int(given) if given else None


_running = 0
_lock = threading.Lock()


@contextmanager
def running(iteration: Iteration, shard: CurrentShard | None = None) -> Iterator[None]:
    """Make these the current iteration and shard in a `with` block."""
    tokens = _iteration.set(iteration), _shard.set(shard)
    try:
        with _in_environment(shard) if shard is not None else nullcontext():
            yield
    finally:
        _iteration.reset(tokens[0])
        _shard.reset(tokens[1])


@contextmanager
def _in_environment(shard: CurrentShard) -> Iterator[None]:
    """Set the variable for as long as any shard of this process runs, so that none finds it missing."""
    global _running
    with _lock:
        _running += 1
        os.environ[DEFERRED_ITERATION_SHARD_INDEX_KEY] = str(shard.index)
    try:
        yield
    finally:
        with _lock:
            _running -= 1
            if not _running:
                os.environ.pop(DEFERRED_ITERATION_SHARD_INDEX_KEY, None)


_watching: ContextVar[Callable[[Exception, int], None] | None] = ContextVar("defer_row_errors", default=None)


@contextmanager
def watching(told: Callable[[Exception, int], None]) -> Iterator[None]:
    """Call `told(error, calls)` for each row that raises in a `with` block, before the shard hands over. What `told`
    raises fails the attempt, so that a test sees an exception that the iteration would repeat."""
    token = _watching.set(told)
    try:
        yield
    finally:
        _watching.reset(token)


def tell_row_error(error: Exception, calls: int) -> None:
    """Tell the watcher, if any, that a row has raised, for the `calls`-th time."""
    told = _watching.get()
    if told is not None:
        told(error, calls)
