"""What every source of rows promises: querysets, the sources of `defer_iteration.sources`, and the one of the docs."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from testapp.models import Row

from defer_core.spi import decode, encode
from defer_iteration import KeyRange, Rows, Split, cut
from defer_iteration.rows.memory import MemoryRows
from defer_iteration.rows.sources import rows_of
from defer_iteration.sources import dates, lines, listed, numbers

pytestmark = pytest.mark.django_db

EXAMPLES = Path(__file__).parents[2] / "examples" / "sources"
LINES = [f"{index}: {'é' * (index % 29)}{'x' * (index % 131)}" for index in range(300)]
NAMES = [f"name {index % 17}, {index}" for index in range(83)]
MANY = (0, 1, 5, 80)
"""How many rows there are."""

Made = tuple[Callable[[], Rows], list[Any]]
"""What makes the rows anew, and what they are."""


def names() -> list[str]:
    return NAMES[: SIZES[-1]]


def few_lines() -> BinaryIO:
    return FILES[-1].open("rb")


def from_memory() -> Rows:
    return MemoryRows(dict(enumerate(names())), page=4)


SIZES: list[int] = []
FILES: list[Path] = []


def of_numbers(size: int, folder: Path) -> Made:
    return numbers(-7, size - 7), list(range(-7, size - 7))


def of_dates(size: int, folder: Path) -> Made:
    first = date(2024, 2, 20)
    days = [first + timedelta(index) for index in range(size)]
    return dates(first, first + timedelta(size - 1)), days


def of_a_list(size: int, folder: Path) -> Made:
    return listed(names), names()


def of_lines(size: int, folder: Path) -> Made:
    (folder / "lines").write_bytes("".join(f"{each}\n" for each in LINES[:size]).encode())
    return lines(folder / "lines"), LINES[:size]


def of_other_lines(size: int, folder: Path) -> Made:
    """A header, ends of two kinds, empty lines, and no end of the last one; opened by a function."""
    found = [each if index % 3 else "" for index, each in enumerate(LINES[1 : size + 1], 1)]
    FILES.append(folder / "lines")
    ended = (f"{each}\r\n" if index % 2 else f"{each}\n" for index, each in enumerate(found))
    FILES[-1].write_bytes("".join(["the header\n", *ended]).encode().removesuffix(b"\n").removesuffix(b"\r"))
    return lines(few_lines, header=True), found


def of_a_folder(size: int, folder: Path) -> Made:
    from folder_rows import files

    for name in names():
        (folder / name).touch()
    return files(folder), sorted(folder / name for name in names())


def of_memory(size: int, folder: Path) -> Made:
    return from_memory, names()


def of_a_queryset(size: int, folder: Path) -> Made:
    Row.objects.bulk_create([Row(number=index) for index in range(size)])
    return lambda: rows_of(Row.objects.all()), list(Row.objects.order_by("pk"))


def of_a_queryset_with_ties(size: int, folder: Path) -> Made:
    Row.objects.bulk_create([Row(number=index % 7) for index in range(size)])
    return lambda: rows_of(Row.objects.all(), "number"), list(Row.objects.order_by("number", "pk"))


SOURCES = {
    "numbers": of_numbers,
    "dates": of_dates,
    "list": of_a_list,
    "lines": of_lines,
    "other lines": of_other_lines,
    "files of a folder": of_a_folder,
    "memory": of_memory,
    "queryset": of_a_queryset,
    "queryset with ties": of_a_queryset_with_ties,
}


@pytest.fixture(params=sorted(SOURCES))
def make(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Make the rows of a source, of a size."""
    monkeypatch.syspath_prepend(EXAMPLES)

    def of_size(size: int) -> Made:
        SIZES.append(size)
        return SOURCES[request.param](size, tmp_path)

    yield of_size
    sys.modules.pop("folder_rows", None)
    SIZES.clear()
    FILES.clear()


def passed(rows: Rows, within: KeyRange, after: Any = None, dice: random.Random | None = None) -> list[Any]:
    """The rows of a range beyond a key, by pages, with their keys."""
    dice = dice or random.Random(1)
    found: list[Any] = []
    while True:
        full = rows.ask_for(dice.choice([1, 2, 3, 8]))
        page = [(rows.key(rows.take_key(row)), row) for row in rows.page(within, after)]
        found += page
        if len(page) < full:
            assert list(rows.page(within, found[-1][0] if found else after)) == [], "a short page was not the last"
            return found
        after = page[-1][0]


def all_of(split: Split, rows: Rows) -> list[Any]:
    return [each for within in split.ranges for each in passed(rows, within)]


@pytest.mark.parametrize("size", MANY)
@pytest.mark.parametrize("shards", [1, 2, 7, 64])
def test_a_split_has_every_row_once_in_order(make: Any, size: int, shards: int) -> None:
    source, expected = make(size)
    split = source().split(shards)
    assert len(split.ranges) <= shards and bool(split.ranges) is bool(size)
    assert split.total in (None, size)
    assert [row for _, row in all_of(split, source())] == expected


def test_ranges_are_of_about_the_same_size(make: Any) -> None:
    source, _ = make(80)
    sizes = [len(passed(source(), within)) for within in source().split(4).ranges]
    assert len(sizes) == 4 and sum(sizes) == 80 and min(sizes) >= 8


def test_a_page_begins_beyond_any_key(make: Any) -> None:
    source, _ = make(80)
    (within,) = source().split(1).ranges
    found = passed(source(), within)
    for index in random.Random(2).sample(range(80), 12):
        assert passed(source(), within, found[index][0]) == found[index + 1 :]


def test_rows_are_found_by_their_keys_which_travel(make: Any) -> None:
    source, _ = make(80)
    (within,) = source().split(1).ranges
    found = passed(source(), within)
    assert len({key for key, _ in found}) == 80
    for key, row in found:
        assert decode(encode(key)) == key and source().find(key) == row


def test_a_range_can_be_cut_at_any_key(make: Any) -> None:
    source, _ = make(80)
    dice = random.Random(3)
    for whole in source().split(3).ranges:
        found = passed(source(), whole)
        at = sorted(dice.sample(range(1, len(found)), 3))
        parts = cut(whole, [found[index][0] for index in at])
        assert [passed(source(), part) for part in parts] == [
            found[start:end] for start, end in zip([0, *at], [*at, len(found)], strict=True)
        ]


def test_the_next_key_is_that_of_the_next_row(make: Any) -> None:
    source, _ = make(80)
    for within in source().split(3).ranges:
        found = passed(source(), within)
        afters = [None, *(key for key, _ in found)]
        assert [source().next_key(within, after) for after in afters] == [*afters[1:], None]
        for skipped in (1, 7):
            beyond = [source().next_key(within, after, skipped) for after in afters]
            assert beyond == [*afters[1 + skipped :], *[None] * (1 + skipped)]


def test_what_is_left_is_counted_and_divided(make: Any) -> None:
    source, _ = make(80)
    for within in source().split(2).ranges:
        found = passed(source(), within)
        for index in (None, 0, len(found) // 2, len(found) - 2, len(found) - 1):
            after, left = (None, found) if index is None else (found[index][0], found[index + 1 :])
            number = source().count(within, after)
            assert number == len(left)
            for parts in (1, 2, 5):
                first, *others = source().divide(within, after, parts, number)
                assert len(others) < parts
                found_in = [passed(source(), first, after), *(passed(source(), other) for other in others)]
                assert [*chain(*found_in)] == left
                assert len(left) < 4 * parts or min(map(len, found_in)) * parts * 4 > len(left)


@pytest.mark.parametrize("make", sorted(set(SOURCES) - {"queryset", "queryset with ties"}), indirect=True)
def test_sources_travel(make: Any) -> None:
    """Querysets travel in a way of their own."""
    source, expected = make(5)
    there = decode(encode(source))
    assert [row for _, row in all_of(there().split(2), there())] == expected


def test_the_page_prints_the_file() -> None:
    page = (EXAMPLES.parents[1] / "docs" / "sources.md").read_text()
    assert f"```python\n{(EXAMPLES / 'folder_rows.py').read_text()}```" in page
