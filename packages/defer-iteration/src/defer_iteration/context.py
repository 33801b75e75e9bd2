"""What a callback, or `finalize`, can ask about the iteration that it is called by."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field

from .iteration import Iteration

DEFERRED_ITERATION_SHARD_INDEX_KEY = "DEFERRED_ITERATION_SHARD_INDEX"
"""The environment variable with the shard's index: right for one shard at a time in a process."""


@dataclass(frozen=True, kw_only=True)
class CurrentShard:
    """The shard whose row is being passed to the callback."""

    index: int
    """Its number, from 0."""
    iteration_id: str
    """Its iteration."""
    counters: Counter[str] = field(default_factory=Counter)
    """What this attempt has counted since its last checkpoint."""

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter of the iteration; the sum over all shards is `current_iteration().counters` in
        `finalize`."""
        self.counters[name] += number


_shard: ContextVar[CurrentShard | None] = ContextVar("defer_shard", default=None)
_iteration: ContextVar[Iteration | None] = ContextVar("defer_iteration", default=None)


def current_shard() -> CurrentShard | None:
    """The shard that is running here, or None outside a callback."""
    return _shard.get()


def current_iteration() -> Iteration | None:
    """The iteration that is running here, as it was when this task began; None outside its tasks."""
    return _iteration.get()


def get_deferred_shard_index() -> int | None:
    """The index of the shard that is running here, or None outside a callback."""
    shard = _shard.get()
    if shard is not None:
        return shard.index
    given = os.environ.get(DEFERRED_ITERATION_SHARD_INDEX_KEY)
    return int(given) if given else None


_running = 0
_lock = threading.Lock()


@contextmanager
def running(iteration: Iteration, shard: CurrentShard | None = None) -> Iterator[None]:
    """Make these the current ones for the length of a `with` block."""
    tokens = _iteration.set(iteration), _shard.set(shard)
    try:
        with _in_environment(shard) if shard is not None else nullcontext():
            yield
    finally:
        _iteration.reset(tokens[0])
        _shard.reset(tokens[1])


@contextmanager
def _in_environment(shard: CurrentShard) -> Iterator[None]:
    """The variable stays set while any shard of this process runs, so that none finds it missing."""
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
    """Have `told(error, calls)` called for each row that raises, before it is handed over. What `told` raises fails the
    attempt instead: so a test sees an exception that the iteration would go on repeating."""
    token = _watching.set(told)
    try:
        yield
    finally:
        _watching.reset(token)


def tell_row_error(error: Exception, calls: int) -> None:
    """A row's callback has raised, for the `calls`-th time in a row."""
    told = _watching.get()
    if told is not None:
        told(error, calls)
