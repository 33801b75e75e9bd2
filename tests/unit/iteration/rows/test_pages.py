"""How many rows a page asks for, and how many a database reads for them: counted, for times say little."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from testapp import iterations
from testapp.models import Author, Book, Pair, Row, Word

from defer_core.spi import clock
from defer_core.testing import drain
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.protocol.timing import CHECKPOINT_EVERY
from defer_iteration.rows.pages import FIRST, WEIGHT, PageSize, weight
from defer_iteration.rows.queryset import QuerySetRows

pytestmark = [pytest.mark.django_db(transaction=True, databases=["default", "other"]), pytest.mark.on_sql]


@pytest.fixture
def now() -> Iterator[list[float]]:
    """A clock that callbacks move."""
    time = [1_000_000.0]
    with clock.replaced(lambda: time[0]):
        yield time


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each page has asked for."""
    asked: list[int] = []
    ask_for = QuerySetRows.ask_for
    monkeypatch.setattr(QuerySetRows, "ask_for", lambda self, rows: asked.append(rows) or ask_for(self, rows))
    return asked


# --- size ------------------------------------------------------------------------------------------------------------


def test_fast_and_light_rows_come_in_ever_larger_pages() -> None:
    size = PageSize(2_000)
    asked = []
    for _ in range(7):
        asked.append(size.wanted(3.0))
        size.weigh("light")
        size.passed(asked[-1], asked[-1], asked[-1] * 1e-5)
    assert asked == [8, 32, 128, 512, 2_000, 2_000, 2_000]


@pytest.mark.parametrize("seconds", [0.01, 0.1, 0.3, 0.5, 1.0, 4.0])
def test_a_page_lasts_no_longer_than_until_the_next_pause(seconds: float) -> None:
    size, left = PageSize(2_000), 3.0
    size.passed(8, 8, 8 * seconds)
    for _ in range(100):
        asked = size.wanted(left)
        assert asked & (asked - 1) == 0 and 1 <= asked <= size.largest * 4
        assert asked == 1 or asked * seconds <= left
        size.passed(asked, asked, asked * seconds)
        left = left - asked * seconds if left > asked * seconds else 3.0


def test_a_page_weighs_a_few_megabytes() -> None:
    size = PageSize(2_000)
    size.weigh("x" * 1_000_000)
    size.passed(8, 8, 0.001)
    assert size.wanted(3.0) == 4
    size.weigh("x" * 2 * WEIGHT)
    size.passed(4, 4, 0.001)
    assert size.wanted(3.0) == 1
    for _ in range(100):  # and then all are light
        size.weigh("light")
        size.passed(size.wanted(3.0), size.wanted(3.0), 0.001)
    assert size.wanted(3.0) == 2_000


def test_the_weight_of_a_row_is_that_of_all_that_belongs_to_it(db: None) -> None:
    author = Author.objects.create(name="a" * 100)
    book = Book.objects.create(title="t", author=author)
    Book.objects.create(title="t", author=author)
    light = weight(Book.objects.get(pk=book.pk))
    assert light < 5_000
    author.name = "x" * 100_000
    book.author = author
    assert weight(book) > 100_000
    author.name = "short"
    (prefetched,) = Author.objects.prefetch_related("books")
    for each in prefetched.books.all():
        each.title = "y" * 50_000
    assert weight(prefetched) > 50_000
    book.notes_in_it = {"a": ["z" * 30_000, {"b": b"z" * 20_000}]}
    assert 50_000 < weight(book) < 60_000
    book.itself = book
    assert weight(book) < 60_000


# --- rows read for rows passed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.02, 0.1, 0.3, 0.5, 1.0, 7.0])
@pytest.mark.parametrize("atomic", [False, True])
def test_no_more_is_read_than_is_passed(
    queue: Any, rows: Any, now: list[float], read: list[int], seconds: float, atomic: bool
) -> None:
    keys = rows(500)

    def slow(row: Any) -> None:
        now[0] += seconds

    iterations.before.append(slow)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1, _atomic=atomic)
    drain(queue)
    assert sorted(iterations.seen) == keys
    assert sum(read) <= 1.5 * len(keys)
    assert max(read) * seconds <= max(CHECKPOINT_EVERY, FIRST * seconds)


@pytest.mark.parametrize("atomic", [False, True])
def test_fast_rows_are_read_in_few_pages(
    queue: Any, rows: Any, now: list[float], read: list[int], atomic: bool
) -> None:
    rows(5_000)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=1, _atomic=atomic)
    drain(queue)
    assert read[:6] == [8, 32, 128, 512, 2_000, 2_000]
    assert len(iterations.seen) == 5_000


@pytest.mark.parametrize("atomic", [False, True])
def test_heavy_rows_take_a_few_megabytes(queue: Any, rows: Any, atomic: bool) -> None:
    number, size = 60, 1_000_000
    Word.objects.bulk_create([Word(text=f"{each:02}") for each in range(number)])
    table, column = Word._meta.db_table, Author._meta.get_field("name").column
    Author.objects.bulk_create([Author(name="") for _ in range(number)])
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(f"ALTER TABLE testapp_author ALTER COLUMN {column} TYPE text")
        cursor.execute(f"UPDATE testapp_author SET {column} = %s", ["x" * size])
    assert table
    walk(Author.objects.all(), iterations.callback, iterations.finalize, _shards=1, _atomic=atomic)
    tracemalloc.start()
    drain(queue)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(iterations.seen) == number
    assert most < 2 * FIRST * size + WEIGHT


# --- ties ------------------------------------------------------------------------------------------------------------


def work_of(source: Any, order: str) -> int:
    """How much a database does for a walk: thousands of SQLite's steps, or rows that PostgreSQL looks at."""
    if connection.vendor == "sqlite":
        steps = [0]
        connection.connection.set_progress_handler(lambda: steps.__setitem__(0, steps[0] + 1), 1_000)
        walked(source, order)
        connection.connection.set_progress_handler(None, 0)
        return steps[0]
    with CaptureQueriesContext(connection) as queries:
        walked(source, order)
    return sum(map(_looked_at, (each["sql"] for each in queries if each["sql"].startswith("SELECT"))))


def _looked_at(sql: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + sql)
        (plan,) = cursor.fetchone()
    plan = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]
    return _of_plan(plan)


def _of_plan(plan: dict[str, Any]) -> int:
    looked_at = sum(value for name, value in plan.items() if name in ("Actual Rows", "Rows Removed by Filter"))
    return int(looked_at) + sum(map(_of_plan, plan.get("Plans", ())))


def walked(source: Any, order: str) -> int:
    """The rows of the only range, in pages of 500."""
    rows = QuerySetRows(source, order)
    rows.ask_for(500)
    (whole,) = rows.split(1).ranges
    number, after = 0, None
    while page := list(rows.page(whole, after)):
        number, after = number + len(page), rows.key(rows.take_key(page[-1]))
    return number


@pytest.mark.parametrize("values", [1, 2, 10])
def test_the_cost_of_ties_is_linear(db: None, values: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE INDEX tied ON testapp_row (number, id)")
    found = []
    for number in (8_000, 32_000):
        Row.objects.all().delete()
        Row.objects.bulk_create([Row(number=each % values) for each in range(number)])
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE testapp_row")
        assert walked(Row.objects.all(), "number") == number
        found.append(work_of(Row.objects.all(), "number"))
    with connection.cursor() as cursor:
        cursor.execute("DROP INDEX tied")
    # PostgreSQL may walk along the key for the rows of one of a few values: as many for each as there are values
    assert found[1] <= 5 * found[0] or (connection.vendor == "postgresql" and found[1] <= values * number)


def test_the_cost_of_a_common_beginning_of_keys_is_linear(db: None) -> None:
    Word.objects.bulk_create([Word(text="a"), Word(text="b")])
    found = []
    for number in (4_000, 16_000):
        Pair.objects.all().delete()
        Pair.objects.bulk_create([Pair(word_id="a", right=each) for each in range(number)])
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE testapp_pair")
        assert walked(Pair.objects.all(), "pk") == number
        found.append(work_of(Pair.objects.all(), "pk"))
    assert found[1] <= 5 * found[0]


@pytest.mark.parametrize("sizes", [1, 3, 7])
def test_pages_at_the_end_of_ties_are_full(db: None, sizes: int) -> None:
    """A short one would be taken for the last."""
    Row.objects.bulk_create([Row(number=each // 10, rank=each // 10 or None) for each in range(43)])
    for order in ("number", "rank"):
        rows = QuerySetRows(Row.objects.all(), order)
        for within in rows.split(1).ranges:
            full, after, lengths = rows.ask_for(sizes), None, []
            while page := list(rows.page(within, after)):
                after = rows.key(rows.take_key(page[-1]))
                lengths.append(len(page))
            assert full == sizes and set(lengths[:-1]) <= {sizes}
