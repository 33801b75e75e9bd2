"""Sources of rows that are no querysets: numbers, dates, lists and the lines of files.

    defer_iteration_with_finalize(numbers(0, 1_000_000), callback, finalize)

Each function returns what travels: a partial of one of the classes, which are Rows and whose names travel, too. So an
allow-list (`callables`) must have `defer_iteration.sources.*`.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import date, datetime
from functools import cached_property, partial
from io import SEEK_END
from typing import Any, BinaryIO

from defer_core.errors import OptionError

from .errors import IterationRefusedError
from .model.shard import Key, KeyRange, cut
from .rows.base import Rows, Split

Source = Callable[[], Rows]
"""What `defer_iteration_with_finalize` takes in the place of a queryset."""
_SAMPLE = 64 * 1024
"""How many bytes of a file the length of its lines is judged by."""


def numbers(start: int, stop: int) -> Source:
    """Return the whole numbers from `start` on, below `stop`, as rows. Raise OptionError."""
    for name, value in (("start", start), ("stop", stop)):
        if type(value) is not int:
            raise OptionError(f"{name} is {value!r}: it must be a whole number.")
    return partial(NumberRows, start, stop)


def dates(first: date, last: date) -> Source:
    """Return the days from `first` to `last`, both included, as rows. Raise OptionError."""
    for name, value in (("first", first), ("last", last)):
        if not isinstance(value, date) or isinstance(value, datetime):
            raise OptionError(f"{name} is {value!r}: it must be a date.")
    return partial(DateRows, first, last)


def listed(func: Callable[[], Sequence[Any]]) -> Source:
    """Return as rows what is in the sequence that a function at the top of a module returns. Every task calls it again:
    at the same place it must have the same each time, and more only at its end. Raise OptionError."""
    if not callable(func):
        raise OptionError(f"func is {func!r}: it must be a function at the top of a module, which returns a sequence.")
    return partial(ListRows, func)


def lines(
    file: str | os.PathLike[str] | Callable[[], BinaryIO], *, header: bool = False, encoding: str = "utf-8"
) -> Source:
    """Return the lines of a file as rows: text, without the end of the line.

    `file` is a path, or a function at the top of a module that opens a file to be read as bytes, in which one can seek;
    every worker opens it. With `header`, the first line is no row. What is appended after the plan is not walked. Raise
    OptionError."""
    if not callable(file):
        try:
            file = os.path.abspath(os.fspath(file))
        except TypeError:
            raise OptionError(f"file is {file!r}: it must be a path, or a function that opens a file.") from None
    if not isinstance(header, bool):
        raise OptionError(f"header is {header!r}: it must be True or False.")
    try:
        plain = "\r\n".encode(encoding).endswith(b"\r\n")
    except (LookupError, TypeError):
        plain = False
    if not plain:
        raise OptionError(f"encoding is {encoding!r}: it must be one in which a line ends with the byte of a newline.")
    return partial(LineRows, file, header=header, encoding=encoding)


class PlacedRows(Rows):
    """Rows at whole numbers, one at each."""

    def __init__(self) -> None:
        self.asked = self.limit
        self._taken: Key = ()

    @abstractmethod
    def places(self) -> range:
        """Return all places that have a row."""

    @abstractmethod
    def row(self, place: int) -> Any:
        """Return the row at a place."""

    def key_at(self, place: int) -> Key:
        """Return the key of the row at a place."""
        return (place,)

    def place_of(self, key: Key) -> int:
        """Return the place of a key."""
        place: int = key[0]
        return place

    def split(self, shards: int) -> Split:
        places = self.places()
        if not places:
            return Split(ranges=(), total=0)
        whole = KeyRange(lower=self.key_at(places[0]), upper=self.key_at(places[-1]), closed=True)
        return Split(ranges=self.divide(whole, None, shards, len(places)), total=len(places))

    def ask_for(self, rows: int) -> int:
        self.asked = min(rows, self.limit)
        return self.asked

    def page(self, within: KeyRange, after: Key | None) -> Iterator[Any]:
        for place in self._places(within, after)[: self.asked]:
            self._taken = self.key_at(place)  # before the row is yielded: `take_key` is asked then
            yield self.row(place)

    def take_key(self, row: Any) -> Any:
        return self._taken

    def next_key(self, within: KeyRange, after: Key | None, skipped: int = 0) -> Key | None:
        places = self._places(within, after)[skipped:]
        return self.key_at(places[0]) if places else None

    def count(self, within: KeyRange, after: Key | None) -> int:
        return len(self._places(within, after))

    def divide(self, within: KeyRange, after: Key | None, parts: int, rows: int) -> Sequence[KeyRange]:
        places = self._places(within, after)
        parts = min(parts, len(places))
        return cut(within, [self.key_at(places[len(places) * part // parts]) for part in range(1, parts)])

    def find(self, key: Key) -> Any | None:
        place = self.place_of(key)
        return self.row(place) if place in self.places() else None

    def _places(self, within: KeyRange, after: Key | None) -> range:
        """Return the places of a range beyond a key."""
        assert within.lower is not None and within.upper is not None
        first = self.place_of(within.lower) if after is None else self.place_of(after) + 1
        end = self.place_of(within.upper) + within.closed
        return range(first, min(end, self.places().stop))


class NumberRows(PlacedRows):
    """Whole numbers."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.stop = start, stop

    def places(self) -> range:
        return range(self.start, self.stop)

    def row(self, place: int) -> int:
        return place


class DateRows(PlacedRows):
    """Days, each of which is its own key."""

    def __init__(self, first: date, last: date) -> None:
        super().__init__()
        self.first, self.last = first, last

    def places(self) -> range:
        return range(self.first.toordinal(), self.last.toordinal() + 1)

    def row(self, place: int) -> date:
        return date.fromordinal(place)

    def key_at(self, place: int) -> Key:
        return (self.row(place),)

    def place_of(self, key: Key) -> int:
        day: date = key[0]
        return day.toordinal()


class ListRows(PlacedRows):
    """What is in a sequence, by its index."""

    def __init__(self, func: Callable[[], Sequence[Any]]) -> None:
        super().__init__()
        self.func = func

    @cached_property
    def sequence(self) -> Sequence[Any]:
        """What the function returns. Raise IterationRefusedError."""
        found = self.func()
        if isinstance(found, Mapping) or not (hasattr(found, "__len__") and hasattr(found, "__getitem__")):
            raise IterationRefusedError(f"{self.func!r} has returned a {type(found).__name__}, which is no sequence.")
        return found

    def places(self) -> range:
        return range(len(self.sequence))

    def row(self, place: int) -> Any:
        return self.sequence[place]


class LineRows(Rows):
    """The lines of a file; the key of a line is where its first byte is."""

    def __init__(self, file: str | Callable[[], BinaryIO], *, header: bool, encoding: str) -> None:
        self.file, self.header, self.encoding = file, header, encoding
        self.asked = self.limit
        self._taken: Key = ()

    def split(self, shards: int) -> Split:
        with self._opened() as file:
            end = file.seek(0, SEEK_END)
            start = self._start(file)
            whole = KeyRange(lower=(start,), upper=(end,))
            return Split(ranges=cut(whole, self._bounds(file, start, end, shards)) if start < end else ())

    def ask_for(self, rows: int) -> int:
        self.asked = min(rows, self.limit)
        return self.asked

    def page(self, within: KeyRange, after: Key | None) -> Iterator[str]:
        with self._opened() as file:
            at, end = self._ends(file, within, after)
            for _ in range(self.asked):
                line = file.readline() if at < end else b""
                if not line:
                    return
                self._taken = (at,)  # before the row is yielded: `take_key` is asked then
                yield self._text(line)
                at += len(line)

    def take_key(self, row: Any) -> Any:
        return self._taken

    def is_of_row(self, error: Exception) -> bool:
        return isinstance(error, UnicodeDecodeError)

    def next_key(self, within: KeyRange, after: Key | None, skipped: int = 0) -> Key | None:
        with self._opened() as file:
            at, end = self._ends(file, within, after)
            for _ in range(skipped):
                if at >= end or not (line := file.readline()):
                    return None
                at += len(line)
            return (at,) if at < end and file.read(1) else None

    def count(self, within: KeyRange, after: Key | None) -> int:
        """Return how many lines are left, judging by the length of the next ones if that is many."""
        with self._opened() as file:
            at, end = self._ends(file, within, after)
            first = at
            number = 0
            while at < end and (line := file.readline()):
                at, number = at + len(line), number + 1
                if at - first > _SAMPLE:
                    return number * (end - first) // (at - first)
            return number

    def divide(self, within: KeyRange, after: Key | None, parts: int, rows: int) -> Sequence[KeyRange]:
        with self._opened() as file:
            at, end = self._ends(file, within, after)
            return cut(within, self._bounds(file, at, end, parts))

    def find(self, key: Key) -> str | None:
        with self._opened() as file:
            file.seek(key[0])
            line = file.readline()
            return self._text(line) if line else None

    def _opened(self) -> Any:
        """Return the file, which is closed at the end of a `with` block: none is left open between two pages."""
        return closing(self.file() if callable(self.file) else open(self.file, "rb"))

    def _start(self, file: BinaryIO) -> int:
        """Return where the first row begins."""
        file.seek(0)
        return len(file.readline()) if self.header else 0

    def _ends(self, file: BinaryIO, within: KeyRange, after: Key | None) -> tuple[int, int]:
        """Return where the next line beyond a key begins, at which the file is now, and where the range ends."""
        assert within.lower is not None and within.upper is not None
        at = within.lower[0] if after is None else after[0]
        file.seek(at)
        return at if after is None else at + len(file.readline()), within.upper[0]

    def _bounds(self, file: BinaryIO, start: int, end: int, parts: int) -> list[Key]:
        """Return where parts begin that have about as many bytes: each with the first line that begins at an equal
        share or beyond it."""
        found = []
        for part in range(1, parts):
            share = start + (end - start) * part // parts
            if share > start:
                file.seek(share - 1)
                found.append(share - 1 + len(file.readline()))
        return [(at,) for at in dict.fromkeys(found) if at < end]

    def _text(self, line: bytes) -> str:
        return line.removesuffix(b"\n").removesuffix(b"\r").decode(self.encoding)
