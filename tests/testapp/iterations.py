"""Callbacks and finalizes for the tests of iterations."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from defer_iteration import current_iteration, current_shard, get_deferred_shard_index

from .models import Row

seen: list[Any] = []
"""Primary keys in the order in which they were passed."""
batches: list[list[Any]] = []
"""The primary keys of each list that was passed, also of those that raised."""
shards: dict[Any, tuple[Any, ...]] = {}
"""By primary key: the index that the callback was told, in its three ways."""
finalized: list[tuple[Any, ...]] = []
"""What finalize was called with."""
counters: list[dict[str, int]] = []
"""What finalize found counted."""
before: list[Callable[[Any], None]] = []
"""Called with every row first: tests put their mischief here."""
finalizing: list[Callable[[], None]] = []
"""Called by `finalize` first."""
news: list[tuple[Any, ...]] = []
"""What `on_failed` was told: the state, the reason and the arguments."""
waits: list[Any] = []
"""What `throttle` returns, one after the other; then None. An exception is raised."""
asked: list[int] = []
"""How many rows had been passed whenever `throttle` was asked."""


def reset() -> None:
    """Forget everything."""
    for each in (seen, batches, shards, finalized, counters, before, finalizing, news, waits, asked):
        each.clear()


def times() -> Counter[Any]:
    """How often each row was passed."""
    return Counter(seen)


def callback(row: Any, *args: Any, **kwargs: Any) -> None:
    """Note the row."""
    for each in before:
        each(row)
    seen.append(row.pk)
    shard = current_shard()
    assert shard is not None
    shards[row.pk] = (shard.index, get_deferred_shard_index(), int(os.environ["DEFERRED_ITERATION_SHARD_INDEX"]))
    shard.count("passed")
    for each in args:
        shard.count(str(each))


def batch_callback(rows: list[Any], *args: Any) -> None:
    """Note the rows of a list, once none has raised."""
    batches.append([row.pk for row in rows])
    for row in rows:
        for each in before:
            each(row)
    seen.extend(row.pk for row in rows)
    shard = current_shard()
    assert shard is not None
    shards.update((row.pk, (shard.index,)) for row in rows)
    shard.count("passed", len(rows))


def finalize(*args: Any, **kwargs: Any) -> None:
    """Note the call."""
    for each in finalizing:
        each()
    iteration = current_iteration()
    assert iteration is not None
    finalized.append((*args, kwargs) if kwargs else args)
    counters.append(dict(iteration.counters))


def on_failed(*args: Any, **kwargs: Any) -> None:
    """Note the news."""
    iteration = current_iteration()
    assert iteration is not None
    news.append((iteration.state.value, iteration.reason, args, kwargs))


def throttle() -> Any:
    """Wait as the test says."""
    asked.append(len(seen))
    answer = waits.pop(0) if waits else None
    if isinstance(answer, Exception):
        raise answer
    return answer


def all_rows() -> Any:
    """A function that returns the queryset."""
    return Row.objects.all()


RANGES: list[Any] = [(None, None)]
"""What `whole_range` gives."""


def whole_range(queryset: Any, shards: int) -> list[Any]:
    """A `key_ranges_getter`."""
    return RANGES


def yielded_ranges(queryset: Any, shards: int) -> Iterator[Any]:
    """A `key_ranges_getter` that is a generator function."""
    yield None, None
