"""Pages and ranges: every row that matches throughout is passed, whatever the keys, the order and the callback."""

from __future__ import annotations

import uuid
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from django.db import connection
from django.db.models import Count, F, Value
from django.db.models.query import ModelIterable
from django.db.models.sql.compiler import SQLCompiler
from django.test.utils import CaptureQueriesContext
from testapp import iterations
from testapp.models import Author, Book, Child, Novel, Row, Token, Word

from defer_core.testing import drain, run_one
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.model.shard import KeyRange
from defer_iteration.rows import queryset
from defer_iteration.rows.compiled import Part
from defer_iteration.rows.queryset import QuerySetRows
from defer_iteration.rows.sources import rows_over

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queryset, "PAGE", 7)


def taken(rows: QuerySetRows, within: KeyRange) -> list[Any]:
    """The primary keys of a range, a page after another."""
    found: list[Any] = []
    after = None
    while True:
        page = [(row.pk, rows.key(rows.take_key(row))) for row in rows.page(within, after)]
        found += [pk for pk, _ in page]
        if len(page) < rows.page_size:
            return found
        after = page[-1][1]


def passed(queryset: Any, order: str = "pk", shards: int = 4, getter: Any = None) -> list[list[Any]]:
    """The primary keys of each range, in the order in which they are passed."""
    rows = rows_over(queryset, order, getter)
    return [taken(rows, each) for each in rows.split(shards).ranges]


def flat(ranges: list[list[Any]]) -> list[Any]:
    return [key for each in ranges for key in each]


def walk_over(queryset: Any, queue: Any, **options: Any) -> Counter[Any]:
    walk(queryset, iterations.callback, iterations.finalize, **options)
    drain(queue)
    assert iterations.finalized == [()]
    return iterations.times()


# --- balance ---------------------------------------------------------------------------------------------------------


@pytest.mark.on_sql  # to the row; how evenly Datastore's own ranges are has a test with the other tests of it
@pytest.mark.parametrize(
    "keys",
    [
        range(1, 401),
        [*range(1, 41), *range(1_000_000, 1_000_360)],
        [key * key for key in range(1, 401)],
        range(-200, 200),
        range(1, 4001, 10),
    ],
    ids=["dense", "skewed", "quadratic", "negative", "sparse"],
)
@pytest.mark.parametrize("shards", [1, 3, 16])
def test_integer_keys_are_split_by_rows(db: None, keys: Any, shards: int) -> None:
    Row.objects.bulk_create([Row(pk=key) for key in keys])
    ranges = passed(Row.objects.all(), shards=shards)
    assert flat(ranges) == sorted(keys)
    sizes = [len(each) for each in ranges]
    assert len(sizes) == shards and max(sizes) - min(sizes) <= 1


@pytest.mark.on_sql  # to the row
def test_uuid_keys(db: None) -> None:
    Token.objects.bulk_create([Token(id=uuid.uuid4()) for _ in range(100)])
    ranges = passed(Token.objects.all(), shards=8)
    assert sorted(flat(ranges)) == sorted(Token.objects.values_list("pk", flat=True))
    assert {len(each) for each in ranges} <= {12, 13}


@pytest.mark.on_sql  # to the row
def test_string_keys_with_long_common_prefixes(db: None) -> None:
    Word.objects.bulk_create([Word(text="a" * 150 + text) for text in "aAbBäÄzZßéE ꙮ🙂-_'\""])
    ranges = passed(Word.objects.all(), shards=5)
    assert sorted(flat(ranges)) == sorted(Word.objects.values_list("pk", flat=True))
    assert {len(each) for each in ranges} <= {3, 4}


def test_fewer_rows_than_shards(db: None) -> None:
    Row.objects.bulk_create([Row(), Row()])
    assert [len(each) for each in passed(Row.objects.all(), shards=5)] == [1, 1]


# --- order -----------------------------------------------------------------------------------------------------------


def test_ties_of_the_order_field_are_broken_by_key(db: None) -> None:
    Row.objects.bulk_create([Row(number=index % 3) for index in range(60)])
    ranges = passed(Row.objects.all(), "number")
    assert flat(ranges) == list(Row.objects.order_by("number", "pk").values_list("pk", flat=True))
    in_sql = rows_over(Row.objects.all()).in_sql  # rows of one value stay together on Datastore
    assert {len(each) for each in ranges} == {15 if in_sql else 20}


def test_nulls_are_ranges_of_their_own(db: None) -> None:
    Row.objects.bulk_create([Row(rank=index % 5 or None) for index in range(50)])
    ranges = passed(Row.objects.all(), "rank", shards=5)
    assert sorted(flat(ranges)) == sorted(Row.objects.values_list("pk", flat=True))
    without = set(Row.objects.filter(rank=None).values_list("pk", flat=True))
    assert all(set(each) <= without or not set(each) & without for each in ranges)
    assert len(ranges) == 5


def test_nothing_but_nulls(db: None) -> None:
    Row.objects.bulk_create([Row() for _ in range(20)])
    ranges = passed(Row.objects.all(), "rank")
    assert sorted(flat(ranges)) == sorted(Row.objects.values_list("pk", flat=True))


@pytest.mark.parametrize(
    "order",
    [pytest.param("author__name", marks=pytest.mark.on_sql), "author", "price", "published", "title"],  # a join
)
def test_related_and_other_fields(db: None, order: str) -> None:
    authors = [Author.objects.create(name=name) for name in ("Ann", "Bob")]
    for index in range(30):
        Book.objects.create(
            title=str(index % 4), author=[*authors, None][index % 3], price=[None, 1, "2.50"][index % 3]
        )
    ranges = passed(Book.objects.all(), order)
    assert sorted(flat(ranges)) == sorted(Book.objects.values_list("pk", flat=True))
    assert Book.objects.get(pk=ranges[0][0]) is not None


@pytest.mark.on_sql  # Datastore has no aggregates
def test_an_annotation_may_order(db: None) -> None:
    for number in (0, 2, 1, 2):
        row = Row.objects.create()
        Child.objects.bulk_create([Child(row=row) for _ in range(number)])
    ranges = passed(Row.objects.annotate(n=Count("children")), "n", shards=2)
    keys = list(Row.objects.annotate(n=Count("children")).order_by("n", "pk").values_list("pk", flat=True))
    assert flat(ranges) == keys


def test_a_deferred_order_field_costs_no_query_a_row(db: None) -> None:
    Row.objects.bulk_create([Row(number=index % 2) for index in range(6)])
    with CaptureQueriesContext(connection) as queries:
        rows = rows_over(Row.objects.only("done"), "number")
        for each in rows.split(1).ranges:
            assert len(taken(rows, each)) == 6
    assert len(queries) < 6


# --- what the caller asked for is kept -------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["pk", "number"])
def test_a_queryset_that_was_turned_around_loses_no_row(queue: Any, rows: Any, order: str) -> None:
    keys = rows(40)
    assert walk_over(Row.objects.order_by("number").reverse(), queue, order_field=order) == Counter(keys)


@pytest.mark.on_sql  # Datastore has no joins, which select_related is
def test_what_the_caller_asked_of_the_queryset_is_kept(queue: Any) -> None:
    author = Author.objects.create(name="Ann")
    for index in range(10):
        Book.objects.create(title=str(index), author=author)
    found: list[Any] = []

    def look(book: Any) -> None:
        with CaptureQueriesContext(connection) as queries:
            found.append((book.author.name, book.extra, book.get_deferred_fields(), list(book.tags.all())))
        assert len(queries) == 0

    iterations.before.append(look)
    queryset = Book.objects.select_related("author").prefetch_related("tags").annotate(extra=Value(7))
    times = walk_over(queryset.defer("price"), queue, _shards=2)
    assert len(times) == 10
    assert found == [("Ann", 7, {"price"}, [])] * 10


def test_a_queryset_of_another_alias_is_read_and_kept_there(queue: Any) -> None:
    Row.objects.using("other").bulk_create([Row(), Row(), Row()])
    handle = walk(Row.objects.using("other"), iterations.callback, iterations.finalize)
    assert handle.alias == "other"
    drain(queue)
    assert len(iterations.seen) == 3 and iterations.finalized == [()]


def test_using_says_where_the_iteration_is_kept(queue: Any, rows: Any) -> None:
    keys = rows(4)
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize, _using="other")
    assert handle.alias == "other"
    drain(queue)
    assert sorted(iterations.seen) == keys


@pytest.mark.on_sql  # Datastore has no joins
def test_a_join_that_repeats_a_row_passes_it_once(queue: Any) -> None:
    keys = []
    for index in range(12):
        row = Row.objects.create()
        keys.append(row.pk)
        Child.objects.bulk_create([Child(row=row, name="x") for _ in range(index * 2 + 1)])
    assert walk_over(Row.objects.filter(children__name="x"), queue, _shards=3) == dict.fromkeys(keys, 1)


# --- callbacks that change what is walked over -----------------------------------------------------------------------


def test_a_callback_that_changes_the_filtered_field_skips_nothing(queue: Any, rows: Any) -> None:
    keys = rows(50)
    iterations.before.append(lambda row: Row.objects.filter(pk=row.pk).update(done=True))
    assert walk_over(Row.objects.filter(done=False), queue) == dict.fromkeys(keys, 1)


def test_a_callback_that_deletes_its_row_skips_nothing(queue: Any, rows: Any) -> None:
    keys = rows(50)
    seen: list[Any] = []
    iterations.before.append(lambda row: (seen.append(row.pk), row.delete()))
    walk_over(Row.objects.all(), queue)
    assert sorted(seen) == keys
    assert not Row.objects.exists()


def test_a_callback_that_inserts_rows_comes_to_an_end(queue: Any, rows: Any) -> None:
    keys = rows(30)
    iterations.before.append(lambda row: Row.objects.create())
    times = walk_over(Row.objects.all(), queue, _shards=3)
    assert {key: times[key] for key in keys} == dict.fromkeys(keys, 1)
    assert Row.objects.count() == 30 + sum(times.values())


def test_rows_that_are_gone_when_their_turn_comes_are_no_matter(queue: Any, rows: Any) -> None:
    keys = rows(40)
    gone = keys[10:30]
    iterations.before.append(lambda row: row.pk == keys[0] and Row.objects.filter(pk__in=gone).delete())
    times = walk_over(Row.objects.all(), queue, _shards=1)
    assert set(times) >= set(keys[:1]) | set(keys[30:])
    assert max(times.values()) == 1


@pytest.mark.on_sql  # a parameter of the statement is what goes wrong
@pytest.mark.parametrize("atomic", [False, True])
def test_rows_that_come_again_hold_the_iteration(
    queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch, atomic: bool
) -> None:
    keys = rows(20)
    monkeypatch.setattr(Part, "parameter", lambda self, compiler: 0)  # a key that the database takes for another
    handle = walk(
        Row.objects.all(), iterations.callback, iterations.finalize, order_field="number", _shards=1, _atomic=atomic
    )
    for _ in range(4):
        for task in queue.queued():
            with suppress(Exception):
                run_one(task, queue)
    assert handle.progress().state == "held" and "came back as those beyond it" in handle.progress().reason
    assert set(iterations.seen) == set(keys[:7]) and iterations.finalized == []


def test_the_query_does_not_grow(db: None) -> None:
    Row.objects.bulk_create([Row() for _ in range(100)])
    rows = rows_over(Row.objects.filter(done=False))
    with CaptureQueriesContext(connection) as queries:
        assert len(taken(rows, rows.split(1).ranges[0])) == 100
    pages = [query["sql"] for query in queries if "LIMIT 7" in query["sql"]]
    assert len(pages) == 15
    assert "OFFSET" not in "".join(pages)
    assert max(map(len, pages[1:])) - min(map(len, pages[1:])) < 4


@pytest.mark.on_sql
def test_the_sql_of_pages_is_made_once(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    Row.objects.bulk_create([Row(number=index // 3) for index in range(100)])
    rows, made = QuerySetRows(Row.objects.filter(done=False), "number"), []
    (whole,) = rows.split(1).ranges
    make = SQLCompiler.as_sql
    monkeypatch.setattr(SQLCompiler, "as_sql", lambda *args, **kwargs: made.append(1) or make(*args, **kwargs))
    assert len(taken(rows, whole)) == 100
    assert len(made) == 2  # the first page, and all others


QUERYSETS: dict[str, Any] = {
    "plain": lambda: Book.objects.all(),
    "related": lambda: Book.objects.select_related("author"),
    "known": lambda: Author.objects.get(name="Ann").books.all(),
    "prefetched": lambda: Book.objects.prefetch_related("tags"),
    "some": lambda: Book.objects.only("title"),
    "annotated": lambda: Book.objects.annotate(extra=Value(7)),
    "extra": lambda: Book.objects.extra(select={"seven": "7"}),
    "inherited": lambda: Novel.objects.all(),
    "reverse": lambda: Author.objects.filter(books__price=None).distinct(),
    "from_db": lambda: Counted.objects.all(),
    "iterable": lambda: made_otherwise(Book.objects.all()),
}


class Marking(ModelIterable):
    """Makes instances in a way of its own."""

    def __iter__(self) -> Any:
        for row in super().__iter__():
            row.marked = True
            yield row


def made_otherwise(queryset: Any) -> Any:
    queryset._iterable_class = Marking
    return queryset


class Counted(Book):
    """A model that makes its instances in a way of its own."""

    class Meta:
        proxy = True
        app_label = "testapp"

    @classmethod
    def from_db(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().from_db(*args, **kwargs)
        made.loaded = True
        return made


@pytest.mark.on_sql
@pytest.mark.parametrize("name", QUERYSETS)
def test_instances_are_those_of_the_queryset(db: None, name: str) -> None:
    ann = Author.objects.create(name="Ann")
    for index in range(20):
        Novel.objects.create(title=str(index), author=ann, price="2.50" if index % 3 else None)
    queryset = QUERYSETS[name]()
    rows = QuerySetRows(queryset)
    found: list[Any] = []
    for each in rows.split(1).ranges:
        while page := list(rows.page(each, rows.key(rows.take_key(found[-1])) if found else None)):
            found += page
    assert [_content(row) for row in found] == [_content(row) for row in queryset.order_by("pk")]
    assert len(found) == (1 if name == "reverse" else 20)


def _content(row: Any) -> tuple[Any, ...]:
    """All that an instance has."""
    caches = sorted(row._state.fields_cache), sorted(getattr(row, "_prefetched_objects_cache", ()))
    values = {key: value for key, value in vars(row).items() if key not in ("_state", "_prefetched_objects_cache")}
    return type(row), values, row._state.db, row._state.adding, caches


@pytest.mark.on_sqlite
def test_a_statement_is_finished_before_its_first_row_is_passed(db: None) -> None:
    """An open SELECT would keep SQLite from writing, in this connection and in others."""
    Row.objects.bulk_create([Row() for _ in range(7)])
    rows = QuerySetRows(Row.objects.all())
    (whole,) = rows.split(1).ranges
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE aside (x)")
        page = rows.page(whole, None)
        next(page)
        cursor.execute("DROP TABLE aside")  # which SQLite refuses while a statement of this connection is open
    assert len(list(page)) == 6


# --- key_ranges_getter -----------------------------------------------------------------------------------------------


def getter(queryset: Any, shards: int) -> list[tuple[Any, Any]]:
    """Bounds as they are: an open end is None, zero is a bound."""
    return [(None, 0), (0, 3), (3, None)]


def test_key_ranges_getter_is_taken_as_it_is(db: None) -> None:
    Row.objects.bulk_create([Row(number=number) for number in (-2, -1, 0, 1, 2, 3, 4)])
    ranges = passed(Row.objects.all(), "number", getter=getter)
    numbers = dict(Row.objects.values_list("pk", "number"))
    assert [[numbers[key] for key in each] for each in ranges] == [[-2, -1], [0, 1, 2], [3, 4]]


def test_nulls_are_a_range_under_a_getter_too(db: None) -> None:
    Row.objects.bulk_create([Row(rank=number) for number in (-1, None, 0, 2, None, 9)])
    ranges = passed(Row.objects.all(), "rank", getter=getter)
    ranks = dict(Row.objects.values_list("pk", "rank"))
    assert [[ranks[key] for key in each] for each in ranges] == [[-1], [0, 2], [9], [None, None]]


def test_a_getter_in_an_iteration(queue: Any, rows: Any) -> None:
    keys = rows(9)
    assert walk_over(Row.objects.all(), queue, key_ranges_getter=getter, order_field="number") == dict.fromkeys(keys, 1)
    assert len({told[0] for told in iterations.shards.values()}) == 2


@pytest.mark.on_sql  # Datastore compares no columns with each other
def test_split_makes_no_use_of_values_where_rows_are_not_dense(db: None) -> None:
    Row.objects.bulk_create([Row(pk=key) for key in (*range(1, 10), 10**15)])
    assert [len(each) for each in passed(Row.objects.filter(pk__gt=F("number")), shards=5)] == [2] * 5
