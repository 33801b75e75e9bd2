"""What rows are ordered by: keys that the database finds again, or a refusal at the call that says what to do."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import pytest
from django.db import DataError, connection
from django.db.models import (
    Case,
    DurationField,
    Exists,
    ExpressionWrapper,
    F,
    FilteredRelation,
    FloatField,
    Func,
    OuterRef,
    Q,
    Subquery,
    UUIDField,
    Value,
    When,
    Window,
)
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce, Lag, Now, Power, Random, RowNumber
from django.test.utils import CaptureQueriesContext
from testapp import iterations
from testapp.models import Alien, Author, Book, ByBytes, ByCode, Pair, Piece, Shape, Triple, Word
from testapp.shapes import Code

from defer_core.testing import drain
from defer_iteration import IterationRefusedError
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.rows.queryset import QuerySetRows

pytestmark = [pytest.mark.django_db(transaction=True, databases=["default", "other"]), pytest.mark.on_sql]


def walked(queue: Any, queryset: Any, order: str = "pk", **options: Any) -> None:
    """Each row is passed once, and `finalize` called."""
    iterations.reset()
    walk(queryset, iterations.callback, iterations.finalize, order_field=order, **options)
    drain(queue)
    assert iterations.finalized == [()]
    assert sorted(map(_repr, iterations.seen)) == sorted(_repr(row.pk) for row in queryset)
    assert set(iterations.times().values()) <= {1}


def is_psycopg2() -> bool:
    return type(connection.connection).__module__.startswith("psycopg2")


def _repr(key: Any) -> str:
    return repr(bytes(key) if isinstance(key, memoryview) else key)  # psycopg2 makes memoryviews of bytes


def shapes(count: int, **fields: Any) -> None:
    Shape.objects.bulk_create([Shape(**{name: of(each) for name, of in fields.items()}) for each in range(count)])


# --- values that are not what the database compares ------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        ExpressionWrapper(F("number") / Value(3.0), FloatField()),
        Power("number", Value(0.5)),
        ExpressionWrapper(F("number") / Value(4.0), Shape._meta.get_field("number")),
        ExpressionWrapper(F("number") * 1.5, Shape._meta.get_field("text")),
    ],
)
def test_numbers_of_another_type_than_is_said(queue: Any, value: Any) -> None:
    numbers = [2, 5, 7, 8, 10, 11, 13]
    shapes(300, number=lambda each: numbers[each % 7])
    walked(queue, Shape.objects.annotate(x=value), "x", _shards=3)


def test_times_that_the_database_has_written_itself(queue: Any) -> None:
    """SQLite keeps milliseconds of its own, where Django would write microseconds."""
    shapes(100, number=lambda each: each)
    assert Shape.objects.values("at").distinct().count() < 50
    walked(queue, Shape.objects.all(), "at", _shards=3)
    walked(queue, Shape.objects.annotate(x=F("at")), "x", _shards=3)


def test_values_of_a_field_of_somebodys_own(queue: Any) -> None:
    shapes(60, code=lambda each: Code(each % 7) if each % 5 else None)
    walked(queue, Shape.objects.all(), "code", _shards=4)
    ByCode.objects.bulk_create([ByCode(id=Code(each)) for each in range(-20, 20)])
    rows = QuerySetRows(ByCode.objects.all())
    keys = [row.pk.number for each in rows.split(3).ranges for row in rows.page(each, None)]
    assert keys == list(range(-20, 20))
    assert rows.find((7,)).pk == Code(7)


@pytest.mark.parametrize(
    "order", ["blob", "image", "data", "clock", "took", "address", "ratio", "money", "token", "at"]
)
def test_each_kind_of_column_as_the_order(queue: Any, order: str) -> None:
    values: dict[str, Any] = {
        "blob": lambda each: bytes([each % 5, 255]),
        "image": lambda each: f"{each % 5}.png",
        "data": lambda each: {"b": each % 5, "a": [1.5]} if each % 3 else None,
        "clock": lambda each: datetime.time(each % 5, 0, 0, each % 2 * 500),
        "took": lambda each: datetime.timedelta(days=each % 5 - 2, microseconds=1) if each % 3 else None,
        "address": lambda each: f"10.0.0.{each % 5}" if each % 3 else "::1",
        "ratio": lambda each: each % 7 / 3,
        "money": lambda each: Decimal(each % 7) / 10,
        "token": lambda each: None,
        "at": lambda each: datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC, microsecond=each % 5 * 1000),
    }
    shapes(60, **{order: values[order]})
    walked(queue, Shape.objects.all(), order, _shards=4)


@pytest.mark.on_sqlite
def test_an_index_serves_an_order_whose_values_are_left_as_they_are(db: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE INDEX shapes_at ON testapp_shape (at, id)")
    shapes(50, number=lambda each: each)
    rows = QuerySetRows(Shape.objects.all(), "at")
    (whole,) = rows.split(1).ranges
    rows.ask_for(7)
    with CaptureQueriesContext(connection) as queries:
        last = list(rows.page(whole, None))[-1]
        assert len(list(rows.page(whole, rows.key(rows.take_key(last))))) == 7
    with connection.cursor() as cursor:
        for query in queries:
            cursor.execute("EXPLAIN QUERY PLAN " + query["sql"])
            plan = str(cursor.fetchall())
            assert "shapes_at" in plan and "TEMP B-TREE" not in plan
        cursor.execute("DROP INDEX shapes_at")


def test_decimals_of_more_digits_than_sqlite_keeps(queue: Any) -> None:
    tenths = Decimal("0.00000000000000001")
    shapes(
        300,
        fine=lambda each: Decimal("0.1234567890123456") + each % 30 * tenths,
        money=lambda each: Decimal(each % 9) / 10,
    )
    walked(queue, Shape.objects.all(), "money")
    for queryset, order in ((Shape.objects.all(), "fine"), (Shape.objects.annotate(x=F("fine")), "x")):
        if connection.vendor == "sqlite":
            with pytest.raises(IterationRefusedError, match="24 digits, of which SQLite keeps 15"):
                walk(queryset, iterations.callback, iterations.finalize, order_field=order)
        else:
            walked(queue, queryset, order)


def test_bounds_of_a_getter_are_values_as_callers_have_them(queue: Any) -> None:
    shapes(60, code=lambda each: Code(each % 7))
    iterations.RANGES[:] = [(None, Code(2)), (Code(2), Code(5)), (Code(5), Code(50)), (Code(50), None)]
    try:
        walked(queue, Shape.objects.all(), "code", key_ranges_getter=iterations.whole_range)
    finally:
        iterations.RANGES[:] = [(None, None)]
    assert len({told[0] for told in iterations.shards.values()}) == 3


# --- NULL ------------------------------------------------------------------------------------------------------------


def test_columns_that_have_no_value_without_saying_so(queue: Any) -> None:
    shapes(120, number=lambda each: None if each % 9 == 0 else each % 6)
    walked(queue, Shape.objects.all(), "double")
    walked(queue, Alien.objects.all(), "number")
    Piece.objects.bulk_create(
        [Piece(shape_id=key, alien_id=key if key % 2 else None) for key in Shape.objects.values_list("pk", flat=True)]
    )
    walked(queue, Piece.objects.all(), "shape__double")
    walked(queue, Piece.objects.all(), "alien__number")


def test_a_relation_that_may_lead_to_no_row_is_refused(queue: Any) -> None:
    shapes(3, number=lambda each: each)
    walked(queue, Shape.objects.all(), "loose")
    with pytest.raises(IterationRefusedError, match=r"Annotate with a Subquery\(\)"):
        walk(Shape.objects.all(), iterations.callback, iterations.finalize, order_field="loose__weight")
    weight = Subquery(Piece.objects.filter(pk=OuterRef("loose")).values("weight"))
    walked(queue, Shape.objects.annotate(x=weight), "x")


# --- orders that there are not ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        Random(),
        Random() * F("number"),
        Coalesce("ratio", Random()),
        Case(When(number__gt=1, then=Random()), default=Value(0.0)),
        Case(When(at__lt=Now(), then=Value(1)), default=Value(0)),
        ExpressionWrapper(Now() - F("at"), DurationField()),
        Func(function="gen_random_uuid", output_field=UUIDField()),
        RawSQL("random()", []),
        RawSQL("CURRENT_TIMESTAMP", []),
        Subquery(Shape.objects.order_by("?").values("number")[:1]),
        Subquery(Shape.objects.order_by(Random()).values("number")[:1]),
        Subquery(Shape.objects.annotate(r=Random()).filter(pk=OuterRef("pk")).values("r")),
        Exists(Shape.objects.filter(at__lt=Now(), pk=OuterRef("pk"))),
    ],
)
def test_an_order_that_is_another_at_each_look(queue: Any, value: Any) -> None:
    with pytest.raises(IterationRefusedError, match="changes each time"):
        walk(Shape.objects.annotate(x=value), iterations.callback, iterations.finalize, order_field="x")
    shapes(7, number=lambda each: each)
    if "gen_random_uuid" not in getattr(value, "extra", {}).values() or connection.vendor == "postgresql":
        walked(queue, Shape.objects.annotate(x=value).order_by("?"))


@pytest.mark.parametrize(
    "value", [Window(RowNumber(), order_by="number"), Coalesce(Window(Lag("number"), order_by="pk"), 0)]
)
def test_an_order_by_a_window_function(queue: Any, value: Any) -> None:
    with pytest.raises(IterationRefusedError, match="a window function"):
        walk(Shape.objects.annotate(x=value), iterations.callback, iterations.finalize, order_field="x")


@pytest.mark.parametrize(
    ("queryset", "order"),
    [
        (Shape.objects.annotate(x=F("pieces__weight")), "x"),
        (Shape.objects.annotate(x=F("pieces__weight") * F("number")), "x"),
        (Shape.objects.annotate(x=Coalesce("pieces__weight", 0)), "x"),
        (Shape.objects.annotate(x=Case(When(pieces__weight__gt=1, then=Value(1)), default=Value(0))), "x"),
        (Shape.objects.annotate(x=F("others__pieces__weight")), "x"),
        (Shape.objects.annotate(x=F("pieces__shape__number")), "x"),
        (Shape.objects.annotate(p=FilteredRelation("pieces", condition=Q(pieces__weight=1)), x=F("p__weight")), "x"),
        (Shape.objects.annotate(p=FilteredRelation("pieces", condition=Q(pieces__weight=1))), "p__weight"),
        (Shape.objects.annotate(x=Subquery(Word.objects.filter(seen=OuterRef("pieces__weight")).values("seen"))), "x"),
        (Shape.objects.extra(tables=["testapp_word"]).annotate(x=RawSQL("testapp_word.seen", [])), "x"),
        (Author.objects.annotate(x=F("books__tags__name")), "x"),
        (Book.objects.annotate(x=F("tags__name")), "x"),
        (Shape.objects.all(), "pieces__weight"),
        (Shape.objects.all(), "pieces"),
    ],
)
def test_several_values_a_row(queue: Any, queryset: Any, order: str) -> None:
    with pytest.raises(IterationRefusedError, match="one value of it"):
        walk(queryset, iterations.callback, iterations.finalize, order_field=order)


def test_an_annotation_without_a_type(queue: Any) -> None:
    with pytest.raises(IterationRefusedError, match="mixed types"):
        walk(
            Shape.objects.annotate(x=Coalesce("number", "big")),
            iterations.callback,
            iterations.finalize,
            order_field="x",
        )


# --- keys ------------------------------------------------------------------------------------------------------------


def test_keys_of_bytes(queue: Any) -> None:
    ByBytes.objects.bulk_create([ByBytes(id=bytes([each, 0, 255 - each])) for each in range(40)])
    rows = QuerySetRows(ByBytes.objects.all())
    ranges = rows.split(3).ranges
    assert {type(each.upper[0]) for each in ranges if each.upper} == {bytes}
    walked(queue, ByBytes.objects.all(), _shards=3, _on_error="quarantine", _max_attempts=1)


@pytest.mark.on_postgres
@pytest.mark.parametrize("value", ["infinity", "-infinity"])
@pytest.mark.parametrize("order", ["at", "day", "x"])
def test_infinite_dates_lose_no_row(queue: Any, order: str, value: str) -> None:
    """psycopg 3 does not read them, and psycopg2 gives the last or first date there is, which finds other rows."""
    shapes(20, big=lambda each: each)
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE testapp_shape SET at = '{value}', day = '{value}' WHERE big %% 2 = 0", [])
    rows = QuerySetRows(Shape.objects.annotate(x=Func("at", function="")), order)
    with pytest.raises(IterationRefusedError if is_psycopg2() else DataError, match="infinit"):
        [list(rows.page(each, None)) for each in rows.split(1).ranges]


@pytest.mark.on_postgres
def test_the_last_date_there_is_may_be_an_order(queue: Any) -> None:
    shapes(20, day=lambda each: datetime.date.max if each % 2 else datetime.date.min)
    walked(queue, Shape.objects.all(), "day", _shards=2)


@pytest.mark.parametrize("order", ["pk", "number", "right", "word", "word__seen"])
def test_keys_of_two_columns(queue: Any, order: str) -> None:
    Word.objects.bulk_create([Word(text=text, seen=len(text)) for text in ("a", "b", "cc")])
    Pair.objects.bulk_create(
        [Pair(word_id=["a", "b", "cc"][each % 3], right=each // 3, number=each % 4 or None) for each in range(60)]
    )
    walked(queue, Pair.objects.all(), order, _shards=4)
    walked(queue, Pair.objects.filter(right__gt=3), order, _shards=1)


def test_keys_of_three_columns(queue: Any) -> None:
    made = [Triple(left=each % 2, middle=Code(each % 5), right=str(each)) for each in range(60)]
    Triple.objects.bulk_create(made)
    rows = QuerySetRows(Triple.objects.all())
    found, after = [], None
    rows.ask_for(4)
    for each in rows.split(3).ranges:
        after = None
        while page := list(rows.page(each, after)):
            found += [row.right for row in page]
            after = rows.key(rows.take_key(page[-1]))
    assert found == [each.right for each in sorted(made, key=lambda each: (each.left, each.middle.number, each.right))]
    assert rows.find(after).right == found[-1]


def test_bounds_of_keys_of_two_columns(queue: Any) -> None:
    Word.objects.bulk_create([Word(text=text) for text in ("a", "b", "cc")])
    Pair.objects.bulk_create([Pair(word_id=["a", "b", "cc"][each % 3], right=each) for each in range(30)])
    iterations.RANGES[:] = [(None, ("a", 9)), (("a", 9), "b"), ("b", ("b", 10)), (("b", 10), None)]
    try:
        walked(queue, Pair.objects.all(), key_ranges_getter=iterations.whole_range)
    finally:
        iterations.RANGES[:] = [(None, None)]
    assert len({told[0] for told in iterations.shards.values()}) == 4
