"""Either every row that a queryset gives, once, or a refusal at the call: whatever the fields, the expressions, the
order, the size of pages and the number of shards.

`DEFER_TEST_DRAWS=20000` draws so many.
"""

from __future__ import annotations

import datetime
import os
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from itertools import count, cycle
from random import Random
from typing import Any

import pytest
from django.core.exceptions import FieldError
from django.db import DatabaseError, connection, transaction
from django.db.models import (
    Avg,
    Case,
    CharField,
    Count,
    DateTimeField,
    Exists,
    ExpressionWrapper,
    F,
    FilteredRelation,
    FloatField,
    IntegerField,
    Max,
    OuterRef,
    Q,
    StdDev,
    Subquery,
    Sum,
    Value,
    When,
    Window,
)
from django.db.models.expressions import RawSQL
from django.db.models.functions import (
    Abs,
    Cast,
    Coalesce,
    Collate,
    Concat,
    Length,
    Lower,
    Now,
    Power,
    RowNumber,
    Sqrt,
    Trunc,
    Upper,
)
from django.db.models.functions import Random as AtRandom
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from testapp import models
from testapp.models import Alien, Circle, Pair, Piece, Shape, Triple, Word
from testapp.shapes import Code

from defer_core.spi import decode, encode
from defer_iteration import IterationRefusedError
from defer_iteration.model.shard import Key, KeyRange
from defer_iteration.rows.pickled import checked, pack, unpack
from defer_iteration.rows.queryset import QuerySetRows
from defer_iteration.rows.sources import rows_over

pytestmark = [pytest.mark.django_db, pytest.mark.on_sql]
DRAWS = int(os.environ.get("DEFER_TEST_DRAWS", "150"))

UTC = datetime.UTC
DAY = datetime.datetime(2024, 1, 1, tzinfo=UTC)
TOKYO = datetime.timezone(datetime.timedelta(hours=9))
NUMBERED = Window(RowNumber(), partition_by="number", order_by="pk")
NUMBERS = [None, 0, 0, 0, 1, 2, 3, 7, 11, 13, -5]
POOLS: dict[str, list[Any]] = {
    "number": NUMBERS,
    "big": [0, 1, 2**53, 2**53 + 1, 2**62, -(2**63)],
    "code": [None, Code(1), Code(2), Code(10), Code(-3)],
    "ratio": [None, 0.0, 0.1, 0.2, 0.1 + 0.2, 0.3, 1 / 3, 1e300, -1e-300, 5e-324],
    "money": [None, Decimal("0.10"), Decimal("0.20"), Decimal("0.30"), Decimal("-99.99"), Decimal("123456.78")],
    "fine": [Decimal("0.12345678901234567890"), Decimal("0.12345678901234567891"), Decimal(1)],
    "flag": [True, False],
    "text": ["", "a", "A", "ä", "b", "B", "a b", "%s", "100%", "'", "\\", "ß", "ss", "é", "é", "🙂"],
    "blob": [b"", b"\0", b"\xff", b"ab", b"\x80a"],
    "at": [datetime.datetime(2024, 3, 31, 1, tzinfo=UTC, microsecond=each) for each in (0, 1, 10, 123000, 123456)],
    "day": [None, datetime.date(2024, 1, 1), datetime.date(2024, 12, 31), datetime.date(1, 1, 1)],
    "clock": [None, datetime.time(0), datetime.time(12, 30, 0, 500), datetime.time(23, 59, 59, 999999)],
    "took": [None, datetime.timedelta(0), datetime.timedelta(days=-1, microseconds=1), datetime.timedelta(days=400)],
    "token": [None, *(uuid.UUID(int=each << 96) for each in (0, 1, 2**31, 2**32 - 1))],
    "address": [None, "10.0.0.1", "9.0.0.1", "::1", "2001:db8::1"],
    "image": ["", "a.png", "b/c.png"],
    "data": [None, 1, "1", {"b": 1, "a": [1.5, None]}, [1, 2], {"a": 1}],
}
"""Values of each column: few, so that there are ties, and such as are changed on their way."""

ORDERS = [*POOLS, "pk", "double", "secret", "other", "other__number", "other__at", "loose__weight", "circle__radius"]
ANNOTATIONS: dict[str, Callable[[], Any]] = {
    "column": lambda: F("ratio"),
    "decimal": lambda: F("money"),
    "third": lambda: ExpressionWrapper(F("number") / Value(3.0), FloatField()),
    "root": lambda: Power(Abs("number"), Value(0.5)),
    "square root": lambda: Sqrt(Abs(Cast("number", FloatField()))),
    "claimed whole": lambda: ExpressionWrapper(F("number") / Value(4.0), IntegerField()),
    "claimed text": lambda: ExpressionWrapper(F("number") * 2, CharField()),
    "tenths": lambda: F("money") / Decimal("3"),
    "sum": lambda: Sum("pieces__weight"),
    "mean": lambda: Avg("pieces__weight"),
    "deviation": lambda: StdDev("pieces__weight"),
    "number of pieces": lambda: Count("pieces"),
    "mean of decimals": lambda: Avg("others__money"),
    "latest": lambda: Max("others__at"),
    "longest": lambda: Max("others__took"),
    "upper": lambda: Upper("text"),
    "lower": lambda: Lower("text"),
    "length": lambda: Length("text"),
    "joined": lambda: Concat("text", Value("-"), "text", output_field=CharField()),
    "collated": lambda: Collate("text", "nocase" if connection.vendor == "sqlite" else "C"),
    "constant": lambda: Value(7),
    "nothing": lambda: Value(None, output_field=IntegerField()),
    "case": lambda: Case(When(number__gt=2, then=F("ratio")), default=Value(0.1)),
    "filled": lambda: Coalesce("number", "number", Value(-1)),
    "of two types": lambda: Coalesce("number", "big"),
    "subquery": lambda: Subquery(Piece.objects.filter(shape=OuterRef("pk")).order_by("weight").values("weight")[:1]),
    "exists": lambda: Exists(Piece.objects.filter(shape=OuterRef("pk"))),
    "raw": lambda: RawSQL("testapp_shape.number * 1.5", [], output_field=FloatField()),
    "in UTC": lambda: Trunc("at", "hour", tzinfo=UTC),
    "in Tokyo": lambda: Trunc("at", "hour", output_field=DateTimeField(), tzinfo=TOKYO),
    "later": lambda: ExpressionWrapper(F("at") + F("took"), DateTimeField()),
    "weight": lambda: F("pieces__weight"),
    "row number": lambda: Window(RowNumber(), order_by="number"),
    "random": lambda: AtRandom(),
    "age": lambda: Now() - F("at"),
}  # fmt: skip
REFUSED = {"weight", "row number", "random", "age", "in Tokyo", "loose__weight", "of two types"}
"""Orders that no database can be asked for, page after page."""
REFUSED_ON_SQLITE = {"fine", "tenths", "mean of decimals"}

QUERYSETS: dict[str, Callable[[Any], Any]] = {
    "all": lambda rows: rows,
    "empty": lambda rows: rows.filter(pk__in=[]),
    "contradiction": lambda rows: rows.filter(number__gt=2, pk__in=[]),
    "too large": lambda rows: rows.filter(number=2**70),
    "some": lambda rows: rows.filter(Q(number__gt=1) | Q(number=None)),
    "not": lambda rows: rows.exclude(number__gt=1),
    "joined": lambda rows: rows.filter(pieces__weight__gte=0),
    "joined and distinct": lambda rows: rows.filter(pieces__weight__gte=0).distinct(),
    "reverse": lambda rows: rows.order_by("-number").reverse(),
    "shuffled": lambda rows: rows.order_by("?"),
    "only": lambda rows: rows.only("text"),
    "defer": lambda rows: rows.defer("number", "text"),
    "related": lambda rows: rows.select_related("other", "other__other"),
    "prefetched": lambda rows: rows.prefetch_related("pieces", "others"),
    "extra": lambda rows: rows.extra(where=["testapp_shape.number > 0 OR testapp_shape.number IS NULL"]),
    "crossed": lambda rows: rows.extra(tables=["testapp_word"]),
    "inner": lambda rows: rows.filter(pk__in=rows.filter(number__gt=0).order_by("pk").values("pk")[:9]),
    "long list": lambda rows: rows.filter(pk__in=list(range(1, 400))),
    "window": lambda rows: rows.annotate(w=NUMBERED),
    "window filtered": lambda rows: rows.annotate(w=NUMBERED).filter(w=1),
    "through a window": lambda rows: rows.filter(
        pk__in=rows.annotate(w=NUMBERED).filter(w=1).values("pk")
    ),
    "aggregated": lambda rows: rows.annotate(c=Count("pieces")).filter(c__lt=2),
    "relation": lambda rows: rows.annotate(p=FilteredRelation("pieces", condition=Q(pk__gt=0))).filter(p__weight=1),
    "random beside": lambda rows: rows.annotate(r=AtRandom()),
}  # fmt: skip

REPEATED = ("joined", "joined and distinct", "crossed", "relation", "aggregated")

randoms = st.integers(0, 10**6).map(Random)
pages = st.sampled_from([[1], [2, 7], [7], [8, 1, 32], [2000]])
shards = st.sampled_from([1, 2, 5, 16])
into = st.sampled_from([[0], [2], [0, 3], [1], [4, 0, 1, 2]])
many = settings(max_examples=DRAWS, deadline=None, suppress_health_check=list(HealthCheck), report_multiple_bugs=False)


def travelled(value: Any) -> Any:
    return decode(encode(value))


def divided(rows: QuerySetRows, within: KeyRange, after: Key | None, parts: int) -> Sequence[KeyRange]:
    """What is left of a range in so many parts; in two, of which the second has all of it, for `parts` of 1."""
    left = rows.count(within, after)
    assert left is not None
    if parts == 1 and after is not None:
        return rows.divide_at(within, after)
    parts = min(parts, left)
    return rows.divide(within, after, parts, left) if parts > 1 else [within]


def passed(
    queryset: Any, order: str, number: int, sizes: list[int], *, resumed: bool, parts: Sequence[int] = (0,)
) -> Iterator[Any]:
    """The rows of every range, a page after another; each by an attempt of its own, where `resumed`. Before each page
    the range is divided into so many parts, those of which but the first are then ranges of their own."""
    queryset, into = unpack(pack(checked(queryset))), cycle(parts)
    ranges = deque(rows_over(queryset, order).split(number).ranges)
    while ranges:
        within = ranges.popleft()
        for bound in (within.lower, within.upper):
            assert travelled(bound) == bound
        rows, after, size = rows_over(queryset, order), None, cycle(sizes)
        for _ in count():
            within, *given = divided(rows, within, after, next(into))
            ranges += given
            full = rows.ask_for(next(size))
            keys = []
            for row in rows.page(within, after):
                keys.append(rows.key(rows.take_key(row)))
                yield row
            if len(keys) < full:
                break
            assert keys[-1] != after
            after = travelled(keys[-1])
            rows = rows_over(queryset, order) if resumed else rows


def check(
    queryset: Any,
    order: str,
    number: int,
    sizes: list[int],
    resumed: bool,
    refused: bool = False,
    *,
    parts: Sequence[int] = (0,),
) -> None:
    try:
        with transaction.atomic():
            expected = {row.pk for row in queryset}
    except (DatabaseError, FieldError):
        reject()  # the database cannot be asked for it at all
    try:
        found = [row.pk for row in passed(queryset, order, number, sizes, resumed=resumed, parts=parts)]
    except IterationRefusedError:
        assert refused
        return
    assert len(found) == len(set(found)), "a row twice"
    assert set(found) == expected


def filled(random: Random) -> None:
    values = [{name: random.choice(pool) for name, pool in POOLS.items()} for _ in range(random.choice([0, 1, 7, 30]))]
    for model in (Piece, Circle, Shape, Word):
        model.objects.all().delete()
    Word.objects.bulk_create([Word(text="x"), Word(text="y")])
    shapes = Shape.objects.bulk_create([Shape(pk=key, **each) for key, each in enumerate(values, 1)])
    for shape in shapes:
        shape.other = shapes[shape.pk // 3] if shape.pk % 4 else None
        shape.loose_id = shape.pk % 7 + 1
    Shape.objects.bulk_update(shapes, ["other", "loose"])
    weights = [(shape, key) for shape in shapes for key in range(shape.pk % 4)]
    Piece.objects.bulk_create([Piece(shape=shape, weight=shape.pk * 7 % 3 + key % 2) for shape, key in weights][:25])
    for shape in shapes[::5]:
        Circle(shape_ptr=shape, radius=shape.pk % 2).save_base(raw=True)


@many
@given(st.data())
def test_every_row_of_a_queryset_in_any_order(data: st.DataObject) -> None:
    filled(data.draw(randoms))
    name = data.draw(st.sampled_from(list(QUERYSETS)))
    order = data.draw(st.sampled_from([*ORDERS, *ANNOTATIONS]))
    queryset = QUERYSETS[name](Shape.objects.all())
    computed = order in ANNOTATIONS
    if computed:
        queryset = queryset.annotate(x=ANNOTATIONS[order]())
    refused = order in REFUSED or (order in REFUSED_ON_SQLITE and connection.vendor == "sqlite")
    refused = refused or name == "window filtered" or (name in REPEATED and order == "raw")
    check(
        queryset,
        "x" if computed else order,
        data.draw(shards),
        data.draw(pages),
        data.draw(st.booleans()),
        refused,
        parts=data.draw(into),
    )


@many
@given(st.lists(st.integers(-99, 10**6), max_size=40), pages, shards, st.booleans(), st.data())
def test_every_row_whatever_its_key(
    keys: list[int], sizes: list[int], number: int, resumed: bool, data: st.DataObject
) -> None:
    keys = list(dict.fromkeys(keys))
    made: dict[Any, Callable[[int], Any]] = {
        models.ByBytes: lambda key: models.ByBytes(id=str(key).encode()),
        models.ByCode: lambda key: models.ByCode(id=Code(key), text=str(key % 3)),
        models.ByMoney: lambda key: models.ByMoney(id=Decimal(key) / 10),
        models.ByTime: lambda key: models.ByTime(id=DAY + datetime.timedelta(milliseconds=key)),
        models.ByRatio: lambda key: models.ByRatio(id=key / 7),
        Pair: lambda key: Pair(word_id="xy"[key % 2], right=key, number=key % 3 or None),
        Triple: lambda key: Triple(left=key % 2, middle=Code(key % 5), right=str(key)),
        Word: lambda key: Word(text=str(key), seen=key % 3),
        models.Token: lambda key: models.Token(id=uuid.uuid5(uuid.NAMESPACE_OID, str(key)), label=str(key % 3)),
    }  # fmt: skip
    model = data.draw(st.sampled_from(list(made)))
    for each in (Pair, model):
        each.objects.all().delete()
    if model is Pair:
        Word.objects.bulk_create([Word(text="x"), Word(text="y")], ignore_conflicts=True)
    model.objects.bulk_create([made[model](key) for key in keys])
    orders = {
        Pair: ["number", "right", "word", "word__seen"],
        Triple: ["left", "middle"],
        Word: ["seen"],
        models.ByCode: ["text"],
    }
    order = data.draw(st.sampled_from(["pk", *orders.get(model, [])]))
    check(model.objects.all(), order, number, sizes, resumed, parts=data.draw(into))


@many
@given(randoms, st.sampled_from(["pk", "number", "text", "x", "alien__number"]), pages, shards, st.booleans())
def test_every_row_of_an_unmanaged_table(
    random: Random, order: str, sizes: list[int], number: int, resumed: bool
) -> None:
    filled(random)
    if order == "alien__number":
        for key, piece in enumerate(Piece.objects.all()):
            Piece.objects.filter(pk=piece.pk).update(alien=key * 3 % 40 or None)
        check(Piece.objects.all(), order, number, sizes, resumed)
    else:
        check(Alien.objects.annotate(x=F("number") * 1), order, number, sizes, resumed)
