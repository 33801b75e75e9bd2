"""Rows in this process's memory: for simulations and tests."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..model.shard import Key, KeyRange, cut
from .base import Rows, Split


class MemoryRows(Rows):
    """The values of a dict, in the order of its keys, which are all of one type."""

    def __init__(self, values: Mapping[Any, Any], *, page: int = 10) -> None:
        self.values = values
        self.limit = self.page_size = self.asked = page
        self._taken: Any = None

    def split(self, shards: int) -> Split:
        keys = sorted(self.values)
        starts = [keys[len(keys) * index // shards] for index in range(shards)] if keys else []
        starts = sorted(set(starts))
        ends = [*starts[1:], keys[-1]] if keys else []
        ranges = [
            KeyRange(lower=(start,), upper=(end,), closed=index == len(starts) - 1)
            for index, (start, end) in enumerate(zip(starts, ends, strict=True))
        ]
        return Split(ranges=ranges, total=len(keys))

    def ask_for(self, rows: int) -> int:
        self.asked = min(rows, self.page_size)
        return self.asked

    def page(self, within: KeyRange, after: Key | None) -> Iterator[Any]:
        for key in self._keys(within, after)[: self.asked]:
            self._taken = key
            if key in self.values:
                yield self.values[key]

    def take_key(self, row: Any) -> Any:
        return self._taken

    def _keys(self, within: KeyRange, after: Key | None) -> list[Any]:
        """Return the keys of a range beyond another one."""
        assert within.lower is not None and within.upper is not None
        keys, end = sorted(self.values), bisect_right if within.closed else bisect_left
        first = 0 if after is None else bisect_right(keys, after[0])
        return keys[max(first, bisect_left(keys, within.lower[0])) : end(keys, within.upper[0])]

    def next_key(self, within: KeyRange, after: Key | None, skipped: int = 0) -> Key | None:
        return next(((key,) for key in self._keys(within, after)[skipped:]), None)

    def count(self, within: KeyRange, after: Key | None) -> int:
        return len(self._keys(within, after))

    def divide(self, within: KeyRange, after: Key | None, parts: int, rows: int) -> Sequence[KeyRange]:
        keys = self._keys(within, after)
        size, larger = divmod(len(keys), parts)
        firsts = (part * size + min(part, larger) for part in range(1, parts))
        return cut(within, [(keys[first],) for first in firsts if 0 < first < len(keys)])

    def find(self, key: Key) -> Any | None:
        return self.values.get(key[-1])
