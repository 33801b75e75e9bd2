"""Ranges by rows: whatever the keys, every row is in exactly one range, and none is larger than its share."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from testapp.models import Row, Token, Word

from defer_iteration.queryset_rows import QuerySetRows
from defer_iteration.shard import KeyRange
from defer_iteration.splitting import DENSE

pytestmark = [pytest.mark.django_db, pytest.mark.on_sql]
many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

KEYS = st.integers(-(2**63), 2**63 - 1)
RUNS = st.builds(lambda start, number, step: range(start, start + number * step, step), KEYS.map(lambda key: key // 4),
                 st.integers(0, 60), st.sampled_from([1, 1, 2, 1000, 10**12]))  # fmt: skip
"""Keys in a row: dense, or as far apart as deletions leave them."""
SHARDS = st.integers(1, 20)


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
    assert max(sizes, default=0) <= ceil(len(keys) / shards / DENSE)
    if keys and len(keys) < DENSE * (max(keys) - min(keys) + 1):
        assert max(sizes) - min(sizes) <= 1


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


@pytest.mark.parametrize("step", [1, 3])
def test_a_few_statements_find_any_number_of_bounds(step: int) -> None:
    """The ends are asked of the index, and rows counted apart: one scan for all three takes as long as three."""
    filled(Row, [Row(pk=key) for key in range(0, 90 * step, step)])
    with CaptureQueriesContext(connection) as queries:
        assert len(QuerySetRows(Row.objects.all()).split(40).ranges) == 40
    statements = [each["sql"] for each in queries]
    assert [sql for sql in statements if "COUNT" in sql and ("MIN" in sql or "MAX" in sql)] == []
    assert len(statements) == (3 if step == 1 else 6)


def test_a_filter_is_read_in_one_scan() -> None:
    filled(Row, [Row(pk=key, number=key % 2) for key in range(90)])
    with CaptureQueriesContext(connection) as queries:
        assert len(QuerySetRows(Row.objects.filter(number=0)).split(1).ranges) == 1
    assert len([each for each in queries if "COUNT" in each["sql"] and "MIN" in each["sql"]]) == 1
