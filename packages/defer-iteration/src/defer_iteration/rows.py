"""Where the rows of an iteration come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .shard import Key, KeyRange

PAGE = 5_000
"""Rows that one query asks for at the most."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """How rows were divided."""

    ranges: Sequence[KeyRange]
    """Ranges that do not overlap and together hold every row; the last ends with the last row there was."""
    total: int | None = None
    """How many rows there were; None where they were not counted."""


class Rows(ABC):
    """An ordered set of rows. Keys are only ever compared by the source itself."""

    @abstractmethod
    def split(self, shards: int) -> Split:
        """Divide the rows by their number into at most `shards` ranges."""

    @abstractmethod
    def pages(self, within: KeyRange, after: Key | None) -> Iterator[Iterator[tuple[Key, Any]]]:
        """The rows of a range beyond the key `after`, with their keys, in order, a page at a time; each page is
        streamed, and none is asked for before the one before it is used up."""

    @abstractmethod
    def find(self, key: Key) -> Any | None:
        """The row with this key, or None if it is gone or no longer matches."""
