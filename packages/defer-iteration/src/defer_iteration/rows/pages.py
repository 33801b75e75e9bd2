"""How many rows the next page asks for: as many as can be passed until the next pause, and weigh no more than a few
megabytes, judging by the rows so far."""

from __future__ import annotations

from sys import getsizeof
from typing import Any

FIRST = 8
"""How many rows an attempt's first page asks for."""
GROWTH = 4
"""A page asks for at most this many times the rows of the largest page before."""
WEIGHT = 4_000_000
"""The most bytes of a page."""
_FORGOTTEN = 0.9
"""With each page, the weight of the heaviest row so far is multiplied by this."""
_LOOKED_AT = 10_000
"""The most values of a row that are weighed."""


class PageSize:
    """The size of the next page: a power of two, so that there are few different statements, or `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.largest = 0
        """Rows of the largest page so far."""
        self.heaviest = 0.0
        """Bytes of the heaviest row so far, less with each page since."""
        self.seconds = 0.0
        """How many seconds a row takes."""
        self.suspects = 0
        """One of the next `suspects` rows cannot be read, or raises in its batch; 0 if none is known."""

    def wanted(self, seconds: float) -> int:
        """Return how many rows the next page should ask for, to last at most `seconds`."""
        seconds = max(seconds, 0.0)
        rows: float = min(self.largest * GROWTH or FIRST, self.most)
        if self.seconds * rows > seconds:
            rows = seconds / self.seconds
        if self.heaviest * rows > WEIGHT:
            rows = WEIGHT / self.heaviest
        if self.suspects:
            rows = min(rows, self.suspects / 2)
        return self.most if rows >= self.most else 1 << max(int(rows), 1).bit_length() - 1

    def weigh(self, row: Any) -> None:
        """Take the weight of a row into account: the first or the last of a page."""
        self.heaviest = max(self.heaviest, weight(row))

    def passed(self, asked: int, rows: int, seconds: float) -> None:
        """Take into account that a page was passed: how many rows it asked for and had, in how many seconds."""
        self.largest = max(self.largest, asked)
        self.seconds = seconds / rows
        self.heaviest *= _FORGOTTEN
        self.suspects = max(self.suspects - rows, 0)


def weight(row: Any) -> int:
    """Return about how many bytes a row takes, with all that belongs to it."""
    total, left = 0, [row]
    seen: set[int] = set()
    while left and len(seen) < _LOOKED_AT:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        total += getsizeof(value, 0)
        left.extend(_inside(value))
    return total


def _inside(value: Any) -> list[Any]:
    """Return what a value refers to, except what it shares with other rows."""
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if isinstance(getattr(value, "_result_cache", None), list):  # a queryset that was prefetched
        return value._result_cache
    if hasattr(value, "_state"):  # an instance
        return [vars(value)]
    if "fields_cache" in getattr(value, "__dict__", ()):  # the state of an instance, with its related rows
        return [value.fields_cache]
    return []
