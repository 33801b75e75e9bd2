"""Ranges by rows: whatever the keys, every row is in exactly one range, and none is larger than its share."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from testapp.models import Row, Token, Word

from defer_iteration.model.shard import KeyRange
from defer_iteration.rows import marks
from defer_iteration.rows.queryset import QuerySetRows

pytestmark = [pytest.mark.django_db, pytest.mark.on_sql]


many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


KEYS = st.integers(-(2**63), 2**63 - 1)


RUNS = st.builds(lambda start, number, step: range(start, start + number * step, step), KEYS.map(lambda key: key // 4),
                 st.integers(0, 60), st.sampled_from([1, 1, 2, 1000, 10**12]))  # fmt: skip

"""Keys in a row: dense, or as far apart as deletions leave them."""


SHARDS = st.integers(1, 20)


@pytest.fixture(autouse=True)
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows are a walk of several lengths."""
    monkeypatch.setattr(marks, "FIRST", 4)


def sizes_of(queryset: Any, order: str, shards: int) -> list[int]:
    """The size of each range; in their order they have the rows of the queryset, each once."""
    rows = QuerySetRows(queryset, order)
    found = [[row.pk for row in _all(rows, each)] for each in rows.split(shards).ranges]
    expected = sorted(queryset.values_list("pk", flat=True))
    assert sorted(key for each in found for key in each) == expected
    assert all(found), "a shard without rows"
    return [len(each) for each in found]


def _all(rows: QuerySetRows, within: KeyRange) -> Iterable[Any]:
    return list(rows.page(within, None))  # a page holds them all


def filled(model: Any, rows: Iterable[Any]) -> Any:
    model.objects.all().delete()
    model.objects.bulk_create(rows)
    return model.objects.all()


@many
@given(runs=st.lists(RUNS, max_size=4), scattered=st.sets(KEYS, max_size=40), shards=SHARDS)
@example(runs=[range(100), range(100, 200, 2)], scattered=set(), shards=2)
@example(runs=[range(-(2**63), -(2**63) + 5), range(2**63 - 5, 2**63)], scattered=set(), shards=3)
def test_integer_keys_of_any_distribution(runs: list[range], scattered: set[int], shards: int) -> None:
    keys = scattered.union(*runs)
    sizes = sizes_of(filled(Row, [Row(pk=key) for key in keys]), "pk", shards)
    assert len(sizes) == min(shards, len(keys))
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


@many
@given(ranks=st.lists(st.none() | st.integers(-3, 3) | st.integers(-(2**31), 2**31 - 1), max_size=80), shards=SHARDS)
@example(ranks=[None] + [0] * 79, shards=16)
@example(ranks=[0] + [None] * 79, shards=16)
def test_an_order_field_with_repeated_values_and_nulls(ranks: list[int | None], shards: int) -> None:
    sizes = sizes_of(filled(Row, [Row(rank=rank) for rank in ranks]), "rank", shards)
    assert len(sizes) <= shards + (0 < ranks.count(None) < len(ranks))
    assert max(sizes, default=0) <= ceil(len(ranks) / shards)


@many
@given(texts=st.sets(st.text("aAbBäÄzßé 09-_%\\'\"", max_size=6), max_size=60), shards=SHARDS)
def test_strings_with_a_long_common_prefix(texts: set[str], shards: int) -> None:
    sizes = sizes_of(filled(Word, [Word(text="customers/" * 15 + text) for text in texts]), "pk", shards)
    assert len(sizes) == min(shards, len(texts))
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


@many
@given(numbers=st.sets(st.integers(0, 2**128 - 1), max_size=60), shards=SHARDS)
def test_uuids(numbers: set[int], shards: int) -> None:
    sizes = sizes_of(filled(Token, [Token(id=UUID(int=number)) for number in numbers]), "pk", shards)
    assert len(sizes) == min(shards, len(numbers))
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


@pytest.mark.parametrize("number", [3, 4, 31, 32, 33, 95, 96, 97, 223, 224, 225])
def test_as_many_rows_as_the_walk_reaches_or_misses_with_a_length(number: int) -> None:
    """Its lengths double at 32, 96 and 224 rows."""
    sizes = sizes_of(filled(Row, [Row(pk=key * key) for key in range(number)]), "pk", 2)
    assert sizes == [number // 2, number - number // 2]


@pytest.mark.parametrize(("before", "after"), [(5000, 40), (40, 5000), (0, 5000)])
def test_what_the_database_last_counted_does_not_matter(before: int, after: int) -> None:
    """Statistics are of a tenfold, of a hundredth, or never made."""
    filled(Word, [Word(text=f"{key * 7919 % 10007:05}") for key in range(before)])
    if before:
        with connection.cursor() as cursor:
            cursor.execute(f"ANALYZE {Word._meta.db_table}")
    words = filled(Word, [Word(text=f"{key * 7919 % 10007:05}") for key in range(after)])
    sizes = sizes_of(words, "pk", 16)
    assert max(sizes) * 16 / after <= 1.02 or max(sizes) - min(sizes) <= 1
    assert QuerySetRows(words).split(16).total == after
