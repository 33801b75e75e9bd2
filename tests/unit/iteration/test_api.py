"""What is refused at the call, before anything is written, saying what to do instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connection
from django.db.models import F
from django.test import override_settings
from testapp import iterations
from testapp.models import Author, Book, Row

from defer_core.errors import CallableError, CallableForbiddenError, ConfigError, OptionError, UnserializableError
from defer_core.testing import MemoryStore, drain, in_memory
from defer_iteration import IterationRefusedError, models
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.rows.memory import MemoryRows

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Row.objects.all()[:10], "sliced"),
        (lambda: Row.objects.filter(number=1).union(Row.objects.filter(number=2)), "union"),
        (lambda: Row.objects.order_by("number").distinct("number"), "distinct"),
        (lambda: Row.objects.values("pk"), "values"),
        (lambda: Row.objects.values_list("pk"), "values"),
        (lambda: Row.objects.select_for_update(), "select_for_update"),
        (lambda: [1, 2, 3], "not a queryset"),
        (lambda: Row, "no queryset|cannot be iterated"),
    ],
)
def test_querysets_that_cannot_be_iterated(queue: Any, make: Callable[[], Any], why: str) -> None:
    with pytest.raises(IterationRefusedError, match=why):
        walk(make(), iterations.callback, iterations.finalize)
    assert not models.Iteration.objects.exists() and queue.queued() == []


def test_a_manager_stands_for_all_its_rows(queue: Any) -> None:
    Row.objects.create(number=1)
    walk(Row.objects, iterations.callback, iterations.finalize)
    drain()
    assert len(iterations.seen) == len(iterations.finalized) == 1


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"_shard": 3}, "did you mean '_shards'"),
        ({"_shards": 0}, "_shards is 0"),
        ({"_shards": True}, "_shards is True"),
        ({"_queue": "no such/name"}, "_queue"),
        ({"_buffer_time": -1}, "_buffer_time"),
        ({"_buffer_time": "10"}, "_buffer_time"),
        ({"_buffer_time": 60, "_dispatch_deadline": 60}, "_buffer_time"),
        ({"_dispatch_deadline": 5}, "_dispatch_deadline"),
        ({"_delete_marker": 1}, "_delete_marker"),
        ({"_transactional": "yes"}, "_transactional"),
        ({"_on_error": "ignore"}, "_on_error"),
        ({"_on_error": "fail", "_max_attempts": 0}, "_max_attempts"),
        ({"args": "text"}, "args"),
        ({"args": 5}, "args"),
        ({"order_field": "nothing"}, "order_field"),
        ({"order_field": "-number"}, "order_field"),
        ({"order_field": "children__name"}, "order_field"),
        ({"_using": "nowhere"}, "_using"),
        ({"_service": "a", "_target": "b"}, "_target"),
        ({"_rebalance": 1}, "_rebalance is 1: it must be True, False or None"),
    ],
)
def test_options_that_make_no_sense_are_type_errors(queue: Any, options: dict[str, Any], why: str) -> None:
    with pytest.raises(OptionError, match=why):
        walk(Row.objects.all(), iterations.callback, iterations.finalize, **options)
    with pytest.raises(TypeError):
        walk(Row.objects.all(), iterations.callback, iterations.finalize, **options)
    assert not models.Iteration.objects.exists()


@pytest.mark.parametrize("which", ["callback", "finalize"])
def test_a_lambda_is_refused_naming_which(queue: Any, which: str) -> None:
    callables: dict[str, Any] = {"callback": iterations.callback, "finalize": iterations.finalize}
    with pytest.raises(CallableError, match="lambda") as caught:
        walk(Row.objects.all(), **callables | {which: lambda *args: None})
    assert which in caught.value.__notes__[0]


@pytest.mark.parametrize("which", ["callback", "finalize"])
def test_what_is_not_callable_is_refused_naming_which(queue: Any, which: str) -> None:
    callables: dict[str, Any] = {"callback": iterations.callback, "finalize": iterations.finalize}
    with pytest.raises(OptionError, match=f"{which} is 5: it must be callable"):
        walk(Row.objects.all(), **callables | {which: 5})
    assert not models.Iteration.objects.exists() and queue.queued() == []


def test_rows_of_a_kind_of_their_own_travel_by_a_function(queue: Any) -> None:
    with pytest.raises(IterationRefusedError, match="the function that returns them"):
        walk(MemoryRows({}), iterations.callback, iterations.finalize)
    assert not models.Iteration.objects.exists() and queue.queued() == []


def never_run(*args: Any) -> Iterator[None]:
    """A call of it would run nothing."""
    yield


@pytest.mark.parametrize("which", ["callback", "finalize"])
def test_a_generator_function_is_refused(queue: Any, which: str) -> None:
    callables: dict[str, Any] = {"callback": iterations.callback, "finalize": iterations.finalize}
    with pytest.raises(CallableError, match="generator"):
        walk(Row.objects.all(), **callables | {which: never_run})
    walk(Row.objects.all(), **callables, key_ranges_getter=iterations.yielded_ranges)  # of which every value is asked


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"args": [1, [(each for each in ())]]}, "args[1][0]"),
        ({"found": {"by": (each for each in ())}}, "kwargs['found']['by']"),
        ({"queryset": lambda: Row.objects.all()}, "queryset"),
    ],
)
def test_an_argument_that_cannot_travel_is_named(queue: Any, options: dict[str, Any], path: str) -> None:
    given = {"queryset": Row.objects.all(), "callback": iterations.callback, "finalize": iterations.finalize}
    with pytest.raises(UnserializableError) as caught:
        walk(**given | options)
    assert caught.value.path == path and str(caught.value).startswith(f"{path}: a ")


@pytest.mark.parametrize(
    ("rows_on", "using", "refused"),
    [(None, "other", True), ("other", "default", True), ("other", None, False), ("other", "other", False)],
)
def test_atomic_is_refused_where_rows_are_written_on_another_alias(
    queue: Any, rows_on: str | None, using: str | None, refused: bool
) -> None:
    Row.objects.using("other").create(number=1)
    with pytest.raises(IterationRefusedError, match="_atomic=True: Row is written on") if refused else nullcontext():
        walk(Row.objects.using(rows_on), iterations.callback, iterations.finalize, _atomic=True, _using=using)
    drain(queue)
    assert len(iterations.seen) == (not refused)


class WritesOnDefault:
    """A router under which `other` is only read."""

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"


def test_a_router_says_where_rows_are_written(queue: Any) -> None:
    with override_settings(DATABASE_ROUTERS=[WritesOnDefault()]):
        walk(Row.objects.using("other"), iterations.callback, iterations.finalize, _atomic=True, _using="default")
        with pytest.raises(IterationRefusedError, match="written on the alias 'default'"):
            walk(Row.objects.using("other"), iterations.callback, iterations.finalize, _atomic=True)


def test_without_pickle_a_queryset_is_refused_and_a_function_is_not(transactional_db: None) -> None:
    with in_memory(store="django", allow_pickle=False):
        with pytest.raises(UnserializableError, match="function"):
            walk(Row.objects.all(), iterations.callback, iterations.finalize)
        walk(iterations.all_rows, iterations.callback, iterations.finalize)


def test_an_allow_list_holds_for_the_callbacks_and_not_for_what_calls_them(transactional_db: None, rows: Any) -> None:
    iterations.reset()
    keys = rows(7)
    with in_memory(store="django", callables=["testapp.*"]) as queue:
        walk(Row.objects.all(), iterations.callback, iterations.finalize, _shards=2)
        drain(queue)
        assert sorted(iterations.seen) == keys and iterations.finalized == [()]
        with pytest.raises(CallableForbiddenError, match="print"):
            walk(Row.objects.all(), print, iterations.finalize)
    iterations.reset()


def test_tasks_kept_elsewhere_are_a_configuration_error(transactional_db: None) -> None:
    with in_memory(store=MemoryStore(), joins=()), pytest.raises(ConfigError, match="default"):
        walk(Row.objects.all(), iterations.callback, iterations.finalize)


def test_annotations_that_the_database_does_not_find_again_are_refused(queue: Any) -> None:
    from django.db.models import DateField, DateTimeField, FloatField
    from django.db.models.functions import Cast, Coalesce, Trunc

    days = Trunc("published", "day", output_field=DateTimeField(), tzinfo=ZoneInfo("Asia/Tokyo"))
    in_utc = Trunc("published", "day", tzinfo=ZoneInfo("UTC"))
    for found in (days, Coalesce(days, "published")):
        with pytest.raises(IterationRefusedError, match="'at', a time that is truncated in a time zone"):
            walk(Book.objects.annotate(at=found), iterations.callback, iterations.finalize, order_field="at")
    half = F("price") / Decimal("1.5")
    refused = pytest.raises(IterationRefusedError, match="'at', a decimal that SQLite computes")
    with refused if connection.vendor == "sqlite" else nullcontext():
        walk(Book.objects.annotate(at=half), iterations.callback, iterations.finalize, order_field="at")
    for fine in (in_utc, Trunc("published", "day", output_field=DateField()), Cast(half, FloatField()), F("price")):
        walk(Book.objects.annotate(at=fine), iterations.callback, iterations.finalize, order_field="at")


def test_related_fields_and_annotations_may_order(queue: Any) -> None:
    from django.db.models import Count
    from django.db.models.functions import Length

    for queryset, field in [
        (Book.objects.all(), "author__name"),
        (Book.objects.all(), "author"),
        (Author.objects.annotate(long=Length("name")), "long"),
        (Author.objects.annotate(n=Count("books")), "n"),
    ]:
        walk(queryset, iterations.callback, iterations.finalize, order_field=field)
    assert models.Iteration.objects.count() == 4


def test_an_order_by_what_rows_do_not_carry_is_refused() -> None:
    with pytest.raises(IterationRefusedError, match="annotate"):
        queryset = Row.objects.alias(twice=F("number") * 2)
        walk(queryset, iterations.callback, iterations.finalize, order_field="twice")


@pytest.mark.parametrize(("given", "meant"), [("shards", "_shards"), ("queue", "_queue"), ("atomic", "_atomic")])
def test_an_option_without_its_underscore_is_told_of_those_of_iterations(given: str, meant: str) -> None:
    with pytest.raises(OptionError, match=f"did you mean '{meant}'"):
        walk(Row.objects.all(), takes_a_row, nothing, **{given: 3})


def takes_a_row(row: Any) -> None: ...


def nothing() -> None: ...
