"""Where the rows of an iteration come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .shard import Key, KeyRange

PAGE = 2_000
"""Rows that one query asks for at the most: their columns are what a shard keeps in memory."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """How rows were divided."""

    ranges: Sequence[KeyRange]
    """Ranges that do not overlap and together hold every row; the last ends with the last row there was."""
    total: int | None = None
    """How many rows there were; None where they were not counted."""


class Rows(ABC):
    """An ordered set of rows. Keys are only ever compared by the source itself."""

    limit: int = PAGE
    """Rows that a query of a Django database asks for; an attempt may lower it."""
    page_size: int = PAGE
    """A page of fewer rows than this is the last of its range."""

    @abstractmethod
    def split(self, shards: int) -> Split:
        """Divide the rows by their number into at most `shards` ranges, and one more where some have no order value."""

    @abstractmethod
    def page(self, within: KeyRange, after: Key | None) -> Iterator[Any]:
        """The next rows of a range beyond the key `after`, in order, streamed, each once."""

    @abstractmethod
    def take_key(self, row: Any) -> Any:
        """What `key` makes a row's Key of; asked for every row, before its callback can change it."""

    def key(self, taken: Any) -> Key:
        """The Key of a row, from what `take_key` took of it."""
        return taken if isinstance(taken, tuple) else (taken,)

    @abstractmethod
    def find(self, key: Key) -> Any | None:
        """The row with this key, or None if it is gone or no longer matches."""
