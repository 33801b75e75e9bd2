"""The files of a folder as rows, in the order of their names."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from defer_iteration import KeyRange, Rows, Split, cut

Key = tuple[Any, ...]


def files(folder: str | Path) -> Any:
    """Return what travels: a partial of the class, which is at the top of a module."""
    return partial(FolderRows, str(folder))


class FolderRows(Rows):
    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.names = sorted(each.name for each in self.folder.iterdir() if each.is_file())
        self.asked = self.limit

    def split(self, shards: int) -> Split:
        if not self.names:
            return Split(ranges=(), total=0)
        whole = KeyRange(lower=(self.names[0],), upper=(self.names[-1],), closed=True)
        return Split(ranges=self.divide(whole, None, shards, len(self.names)), total=len(self.names))

    # --- the walk ---------------------------------------------------------------------------------

    def ask_for(self, rows: int) -> int:
        self.asked = min(rows, self.limit)
        return self.asked

    def page(self, within: KeyRange, after: Key | None) -> Iterator[Path]:
        for name in self._beyond(within, after)[: self.asked]:
            yield self.folder / name

    def take_key(self, row: Path) -> str:
        return row.name

    def find(self, key: Key) -> Path | None:
        file = self.folder / key[0]
        return file if file.is_file() else None

    # --- division, which is optional --------------------------------------------------------------

    def next_key(self, within: KeyRange, after: Key | None, skipped: int = 0) -> Key | None:
        return next(((name,) for name in self._beyond(within, after)[skipped:]), None)

    def count(self, within: KeyRange, after: Key | None) -> int:
        return len(self._beyond(within, after))

    def divide(self, within: KeyRange, after: Key | None, parts: int, rows: int) -> Sequence[KeyRange]:
        names = self._beyond(within, after)
        parts = min(parts, len(names))
        return cut(within, [(names[len(names) * part // parts],) for part in range(1, parts)])

    def _beyond(self, within: KeyRange, after: Key | None) -> list[str]:
        """The names of a range that are beyond a key."""
        (lower,), (upper,) = within.lower or ("",), within.upper or ("",)
        first = bisect_left(self.names, lower) if after is None else bisect_right(self.names, after[0])
        end = bisect_right(self.names, upper) if within.closed else bisect_left(self.names, upper)
        return self.names[first:end]
