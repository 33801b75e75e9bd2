"""The seam behind which the rows of an iteration are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..model.shard import Key, KeyRange, cut

PAGE = 2_000
"""The most rows that one query asks for: a shard keeps their columns in memory."""
KeyRangesGetter = Callable[[Any, int], Any]
"""Djangae's signature: takes a queryset and a number of shards, and returns `(start, end)` pairs."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """How rows were divided into shards."""

    ranges: Sequence[KeyRange]
    """Ranges that do not overlap and together have every row; the last one ends with the last row there was."""
    total: int | None = None
    """How many rows there were; None if they were not counted."""


class Rows(ABC):
    """An ordered set of rows. Only the source itself compares keys."""

    limit: int = PAGE
    """The most rows that a query of a Django database asks for; an attempt may lower it."""
    page_size: int = PAGE
    """A page of fewer rows than this, and than were asked for, is the last of its range."""

    @property
    def can_be_cut_anywhere(self) -> bool:
        """Whether a range may begin and end with any row; else rows of one value stay together."""
        return True

    @abstractmethod
    def split(self, shards: int) -> Split:
        """Divide the rows by number into at most `shards` ranges, and one more if some have no order value."""

    def ask_for(self, rows: int) -> int:
        """Let the next pages ask for this many rows, if the source can. A page of fewer rows than the number returned
        is the last of its range."""
        return self.page_size

    @abstractmethod
    def page(self, within: KeyRange, after: Key | None) -> Iterator[Any]:
        """Yield the next rows of a range beyond the key `after`, in order, each once."""

    @abstractmethod
    def take_key(self, row: Any) -> Any:
        """Return what `key` makes the Key of a row from; called for every row, before the callback can change it."""

    def key(self, taken: Any) -> Key:
        """Return the Key of a row, from what `take_key` returned."""
        return taken if isinstance(taken, tuple) else (taken,)

    def is_of_row(self, error: Exception) -> bool:
        """Return whether one row may be the cause of an error that a page has raised, rather than the whole query."""
        return False

    def next_key(self, within: KeyRange, after: Key | None, skipped: int = 0) -> Key | None:
        """Return the first key of a range beyond another and this many more, without its row, or None."""
        return None

    def count(self, within: KeyRange, after: Key | None) -> int | None:
        """Return how many rows of a range are beyond a key; None if that is not known, or the rows cannot be
        divided."""
        return None

    def divide(self, within: KeyRange, after: Key | None, parts: int, rows: int) -> Sequence[KeyRange]:
        """Return a range cut so that the `rows` rows of it that are beyond a key, as counted, are in at most `parts`
        parts of equal size. One range is none."""
        return [within]

    def divide_at(self, within: KeyRange, after: Key) -> Sequence[KeyRange]:
        """Return a range in two: up to a key, and all that is beyond it. One range is none."""
        bound = self.next_key(within, after)
        return [within] if bound is None else cut(within, [bound])

    @abstractmethod
    def find(self, key: Key) -> Any | None:
        """Return the row with this key, or None if it is gone or no longer matches."""
