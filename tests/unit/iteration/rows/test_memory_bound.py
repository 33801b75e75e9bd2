"""Promise 7: memory is bounded by one page, whatever the table, and so is what one query reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from weakref import ref

import pytest
from django.db import connection
from django.db.models.signals import post_init
from django.test.utils import CaptureQueriesContext
from testapp import iterations
from testapp.models import Row

from defer_core.testing import drain
from defer_iteration import defer_iteration_with_finalize
from defer_iteration.rows import queryset

PAGE = 50
alive: dict[int, ref[Row]] = {}
most = [0]


@pytest.fixture(autouse=True)
def _counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small pages, and a count of the instances that are alive."""
    monkeypatch.setattr(queryset, "PAGE", PAGE)

    def made(instance: Row, **kwargs: Any) -> None:
        number = id(instance)
        alive[number] = ref(instance, lambda _: alive.pop(number, None))
        most[0] = max(most[0], len(alive))

    alive.clear()
    post_init.connect(made, sender=Row)
    yield
    post_init.disconnect(made, sender=Row)


def passed(number: int, queue: Any, rows: Any) -> tuple[int, int]:
    """Walk so many rows; the most instances alive at once, and the queries."""
    Row.objects.all().delete()
    rows(number)
    held = len(alive)  # `gcloudc` keeps what it has inserted
    most[0] = 0
    iterations.reset()
    with CaptureQueriesContext(
        connection,
    ) as queries:
        defer_iteration_with_finalize(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1)
        drain(queue)
    assert len(iterations.seen) == number
    return most[0] - held, len(queries)


def test_promise_7_ten_times_the_rows_take_no_more_memory_and_ten_times_the_pages(queue: Any, rows: Any) -> None:
    few, few_queries = passed(2 * PAGE, queue, rows)
    many, many_queries = passed(20 * PAGE, queue, rows)
    assert few <= many <= PAGE + 5
    assert 17 <= many_queries - few_queries <= 30


def test_no_query_has_an_offset_or_grows(queue: Any, rows: Any) -> None:
    rows(10 * PAGE)
    with CaptureQueriesContext(connection) as queries:
        defer_iteration_with_finalize(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1)
        drain(queue)
    pages = [each["sql"] for each in queries if f"LIMIT {PAGE}" in each["sql"] and "testapp_row" in each["sql"]]
    assert len(pages) >= 10
    assert not [sql for sql in pages if "OFFSET" in sql]
    assert max(map(len, pages[1:])) - min(map(len, pages[1:])) < 10
