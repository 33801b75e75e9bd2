"""A queryset may have as many parameters as its database takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection
from django.db.models.query import ModelIterable
from testapp import iterations
from testapp.models import Row, Word

from defer_core.testing import drain
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.rows import parameters

pytestmark = [pytest.mark.django_db(transaction=True, databases=["default", "other"]), pytest.mark.on_sql]


def walked(queue: Any, source: Any, **options: Any) -> list[Any]:
    iterations.reset()
    walk(source, iterations.callback, iterations.finalize, **options)
    drain(queue)
    assert iterations.finalized == [()]
    return sorted(iterations.seen)


# --- classes and attributes of other people's ------------------------------------------------------------------------


class Loud(ModelIterable):
    """Makes instances in a way of its own, and leaves some out."""

    def __iter__(self) -> Iterator[Any]:
        for row in super().__iter__():
            row.loud = True
            if not (row.number == 7 or 20 <= row.number < 60):
                yield row


def loud() -> Any:
    """A function that returns a queryset of `Loud`."""
    queryset = Row.objects.all()
    queryset._iterable_class = Loud
    return queryset


# --- many parameters -------------------------------------------------------------------------------------------------


@contextmanager
def at_most(number: int) -> Iterator[None]:
    """A database that takes so many parameters."""
    connection.ensure_connection()
    before = connection.connection.setlimit(9, number)
    yield
    connection.connection.setlimit(9, before)


@pytest.mark.on_sqlite
@pytest.mark.parametrize("number", [600, 996, 998, 999, 1000])
@pytest.mark.parametrize("order", ["pk", "number", "rank"])
def test_as_many_parameters_as_the_queryset_itself_may_have(queue: Any, rows: Any, number: int, order: str) -> None:
    keys = rows(40, rank=1)
    wanted = [*keys, *range(10**6, 10**6 + number - 40)]
    texts = [f"100%s'{each}" for each in range(number)]
    Word.objects.bulk_create([Word(text=text) for text in texts[:40]])
    with at_most(1000):
        assert Row.objects.filter(pk__in=wanted).count() == 40
        assert walked(queue, Row.objects.filter(pk__in=wanted), order_field=order, _shards=3) == keys
        if order == "pk":
            assert walked(queue, Word.objects.filter(pk__in=texts), _shards=3) == sorted(texts[:40])


def test_parameters_that_are_written_into_a_statement(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    Word.objects.create(text="50%'s")
    monkeypatch.setattr(parameters, "most_parameters", lambda connection: 1)
    sql = "SELECT text FROM testapp_word WHERE text LIKE '50%%' AND text IN (%s, %s) AND 1 = %s"
    _, left = parameters.fitted(sql, ["50%'s", "no\0", 1], connection)
    assert left == ("no\0",) if connection.vendor == "sqlite" else left
    with connection.cursor() as cursor:
        cursor.execute(*parameters.fitted(sql, ["50%'s", "?", 1], connection))
        assert cursor.fetchall() == [("50%'s",)]
