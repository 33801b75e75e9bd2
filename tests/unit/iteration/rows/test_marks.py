"""Bounds are found by a few statements, in steps that grow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from testapp.models import Row

from defer_iteration.model.shard import KeyRange
from defer_iteration.rows import marks, split
from defer_iteration.rows.marks import Marks, marked
from defer_iteration.rows.queryset import QuerySetRows

pytestmark = [pytest.mark.django_db, pytest.mark.on_sql]


@pytest.fixture(autouse=True)
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows are a walk of several lengths."""
    monkeypatch.setattr(marks, "FIRST", 4)


def _all(rows: QuerySetRows, within: KeyRange) -> Iterable[Any]:
    return list(rows.page(within, None))  # a page holds them all


def filled(model: Any, rows: Iterable[Any]) -> Any:
    model.objects.all().delete()
    model.objects.bulk_create(rows)
    return model.objects.all()


def test_rows_are_counted_by_the_walk() -> None:
    """No statement counts more rows than the walk's last step has, or reads the least and the greatest key."""
    filled(Row, [Row(pk=key * key, number=key % 2) for key in range(90)])
    for rows in (Row.objects.all(), Row.objects.filter(number=0)):
        with CaptureQueriesContext(connection) as queries:
            split = QuerySetRows(rows).split(40)
        statements = [each["sql"] for each in queries]
        assert (len(split.ranges), split.total) == (40, rows.count())
        assert [sql for sql in statements if "MIN(" in sql or "MAX(" in sql] == []
        assert all(">=" in sql for sql in statements if "COUNT" in sql)


def test_steps_grow_with_the_rows() -> None:
    filled(Row, [Row(pk=key * key) for key in range(2000)])
    with CaptureQueriesContext(connection) as queries:
        QuerySetRows(Row.objects.all()).split(2)
    assert len([each for each in queries if "RECURSIVE" in each["sql"]]) == 7


def test_a_few_statements_find_any_number_of_bounds() -> None:
    """SQLite looks each up by itself."""
    filled(Row, [Row(pk=key * key) for key in range(90)])
    with CaptureQueriesContext(connection) as queries:
        assert len(QuerySetRows(Row.objects.all()).split(40).ranges) == 40
    assert len(queries) == 4 + (1 if connection.vendor == "postgresql" else 39)


def test_rows_deleted_while_bounds_are_looked_up_put_no_row_in_two_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = filled(Row, [Row(pk=key) for key in range(0, 600, 3)])

    def marked_and_deleted(*args: Any) -> Marks:
        found = marked(*args)
        Row.objects.filter(pk__range=(20, 400)).exclude(pk__range=(200, 210)).delete()
        return found

    monkeypatch.setattr(split, "marked", marked_and_deleted)
    source = QuerySetRows(rows)
    found = [row.pk for each in source.split(16).ranges for row in _all(source, each)]
    assert found == sorted(rows.values_list("pk", flat=True))
