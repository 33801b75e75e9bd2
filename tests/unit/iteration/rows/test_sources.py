"""Querysets of every kind: those that Django knows to be empty, with windows and joins, of a replica."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db.models import Count, Exists, F, Func, IntegerField, OuterRef, Q, Window
from django.db.models.functions import Coalesce, RowNumber
from django.db.models.query import ModelIterable
from django.test import override_settings
from testapp import iterations
from testapp.models import Author, Book, Child, Piece, Row, Shape, Word

from defer_core.testing import drain
from defer_iteration import IterationRefusedError
from defer_iteration import defer_iteration_with_finalize as walk

pytestmark = [pytest.mark.django_db(transaction=True, databases=["default", "other"]), pytest.mark.on_sql]


def walked(queue: Any, source: Any, **options: Any) -> list[Any]:
    iterations.reset()
    walk(source, iterations.callback, iterations.finalize, **options)
    drain(queue)
    assert iterations.finalized == [()]
    return sorted(iterations.seen)


# --- nothing to walk -------------------------------------------------------------------------------------------------


def none_of_them() -> Any:
    """A function that returns a queryset of nothing."""
    return Row.objects.none()


@pytest.mark.parametrize(
    "options",
    [{}, {"_atomic": True}, {"order_field": "rank"}, {"_shards": 1}, {"key_ranges_getter": iterations.whole_range}],
)
@pytest.mark.parametrize(
    "source",
    [
        Row.objects.none(),
        none_of_them,
        Row.objects.filter(pk__in=[]),
        Row.objects.filter(number__in=set()),
        Row.objects.filter(number__in=[None]),
        Row.objects.filter(pk__in=Row.objects.none()),
        Row.objects.filter(number=2**70),
        Row.objects.filter(number__gt=2**70),
        Row.objects.filter(Q(pk__in=[]) | Q(number__in=[])),
        Row.objects.filter(number=1).exclude(~Q(pk__in=[])),
        Row.objects.filter(children__in=[]),
        Row.objects.annotate(n=Count("children")).filter(n__in=[]),
        Row.objects.filter(Exists(Child.objects.none())),
    ],
)
def test_a_queryset_that_django_knows_to_be_empty(queue: Any, rows: Any, source: Any, options: dict[str, Any]) -> None:
    rows(4)
    assert walked(queue, source, **options) == []


# --- windows ---------------------------------------------------------------------------------------------------------


NUMBERED = Window(RowNumber(), partition_by="number", order_by="pk")


def numbered() -> Any:
    """A function that returns a queryset with a window function."""
    return Row.objects.annotate(rn=NUMBERED).filter(rn__gt=1)


@pytest.mark.parametrize(
    "source",
    [
        numbered,
        Row.objects.annotate(rn=NUMBERED).filter(rn__gt=1),
        Row.objects.annotate(rn=NUMBERED).exclude(rn=1),
        Row.objects.annotate(rn=NUMBERED).filter(Q(rn=1) | Q(number=2)),
        Row.objects.annotate(rn=NUMBERED).filter(~Q(rn=1), number=1),
        Row.objects.alias(rn=NUMBERED).filter(rn=1),
        Row.objects.annotate(rn=Coalesce(NUMBERED + 1, 0)).filter(rn=2),
        Row.objects.annotate(rn=NUMBERED).annotate(twice=F("rn") * 2).filter(twice__gt=2),
        Row.objects.annotate(rn=NUMBERED).filter(number=F("rn")),
    ],
)
def test_a_filter_on_a_window_function_is_refused(queue: Any, source: Any) -> None:
    with pytest.raises(IterationRefusedError, match=r"window function.*filter\(pk__in=queryset.values\('pk'\)\)"):
        walk(source, iterations.callback, iterations.finalize)


def test_windows_that_nothing_is_filtered_by(queue: Any) -> None:
    Row.objects.bulk_create([Row(number=each % 13) for each in range(60)])
    assert len(walked(queue, Row.objects.annotate(rn=NUMBERED))) == 60
    wanted = sorted(numbered().values_list("pk", flat=True))
    assert walked(queue, Row.objects.filter(pk__in=numbered().values("pk"))) == wanted
    through = Exists(Row.objects.annotate(rn=NUMBERED).filter(rn__gt=1, pk=OuterRef("pk")))
    walked(queue, Row.objects.filter(through))  # whatever such a subquery says of each row


# --- rows several times ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["pk", "number"])
def test_rows_that_another_table_repeats_are_passed_once(queue: Any, rows: Any, order: str) -> None:
    keys = rows(20)
    Word.objects.bulk_create([Word(text=text) for text in "abc"])
    queryset = Row.objects.extra(tables=["testapp_word"], where=["testapp_word.text <> 'a'"])
    assert len(queryset) == 40
    assert walked(queue, queryset, order_field=order) == keys
    assert set(iterations.times().values()) == {1}


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


# --- aliases ---------------------------------------------------------------------------------------------------------


class Replicated:
    """The router of Django's documentation: `other` is read, `default` is written, and every table is on both."""

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"

    def allow_relation(self, *args: Any, **hints: Any) -> bool:
        return True

    def allow_migrate(self, *args: Any, **hints: Any) -> bool:
        return True


def test_an_iteration_over_a_replica_is_kept_where_the_router_writes(queue: Any) -> None:
    Row.objects.using("other").bulk_create([Row(), Row(), Row()])
    with override_settings(DATABASE_ROUTERS=[Replicated()]):
        handle = walk(Row.objects.using("other"), iterations.callback, iterations.finalize)
        assert handle.alias == "default"
        drain(queue)
    assert len(iterations.seen) == 3 and iterations.finalized == [()]


def test_rows_of_a_relation_are_looked_for_where_its_instance_is(queue: Any) -> None:
    Author.objects.create(name="Bob")
    ann = Author.objects.using("other").create(name="Ann")
    Book.objects.using("other").create(author=ann, title="A")
    handle = walk(ann.books.all(), iterations.callback, iterations.finalize)
    assert handle.alias == "other"
    drain(queue)
    assert len(iterations.seen) == 1


def test_a_computed_column_and_a_joined_one_together(queue: Any) -> None:
    Shape.objects.bulk_create([Shape(number=each % 5) for each in range(40)])
    Piece.objects.bulk_create([Piece(shape=shape, weight=each) for shape in Shape.objects.all() for each in (0, 1, 2)])
    positive = Func(F("number"), function="ABS", output_field=IntegerField())
    counted = Shape.objects.annotate(x=positive, n=Count("pieces"))
    assert len(walked(queue, counted.filter(n__gte=3, pieces__weight__gte=1), order_field="x")) == 40
