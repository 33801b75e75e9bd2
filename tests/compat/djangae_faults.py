"""What the tests of Djangae's faults defer: names by which tasks find it, and places for mischief."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from djangae.tasks.deferred import PermanentTaskFailure

ran: list[Any] = []
"""What was called, in order."""
before: list[Callable[[Any], None]] = []
"""Called with each row first."""


def reset() -> None:
    ran.clear()
    before.clear()


def note(*args: Any, **kwargs: Any) -> None:
    ran.append((args, kwargs))


def done(row: Any, *args: Any, **kwargs: Any) -> None:
    """The callback: marks the row as done, which takes it out of a filter on that."""
    for each in before:
        each(row)
    row.done = True
    row.hits += 1
    row.save()
    ran.append(("row", row.number, *args))


def finalize(*args: Any, **kwargs: Any) -> None:
    ran.append(("finalize", *args))


def rows() -> Counter[int]:
    """How often each row was passed."""
    return Counter(each[1] for each in ran if each[0] == "row")


def finalized() -> int:
    return sum(each[0] == "finalize" for each in ran)


def fail() -> None:
    raise ValueError("the original")


def fail_for_good() -> None:
    raise PermanentTaskFailure("never")


def from_zero(queryset: Any, shards: int) -> list[Any]:
    """Key ranges that begin at a falsy key."""
    return [(0, 5), (5, None)]
