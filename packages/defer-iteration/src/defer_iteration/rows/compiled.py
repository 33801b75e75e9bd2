"""What Django does again for every page and every row, done once.

Django compiles a query each time it runs, which takes as long as making the instances of a few dozen rows: here it is
compiled once, and runs with another key for each page. Django also adds annotations and related instances to every
instance; if the caller asked for none, instances are made from their columns by `from_db`, and columns are read without
the layers that Django has for all kinds of queries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db.models import Field, QuerySet, Value
from django.db.models.query import ModelIterable

from .parameters import fitted


class Part(Value):
    """A part of a key, whose value is set before each run of the statement."""

    def __init__(self, field: Field[Any, Any]) -> None:
        super().__init__(None, output_field=field)

    def copy(self) -> Part:
        return self  # all copies of a query share the part whose value is set

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        sql, _ = super().as_sql(compiler, connection)
        return sql, (self,)

    def parameter(self, compiler: Any) -> Any:
        """Return its value as the database takes it."""
        return super().as_sql(compiler, compiler.connection)[1][0]


class Statement:
    """A queryset whose conditions contain parts of a key; it is compiled when it first runs."""

    def __init__(self, queryset: QuerySet[Any], parts: Sequence[Part]) -> None:
        self.queryset, self.parts = queryset, parts
        self.compiler = queryset.query.get_compiler(using=queryset.db)
        self.make = self.compiler.as_sql
        self.made: tuple[str, Sequence[Any]] | None = None
        self.converters: dict[int, Any] | None = None
        self.compiler.as_sql = self._as_sql
        queryset.query.get_compiler = lambda *args, **kwargs: self.compiler

    def beyond(self, key: Sequence[Any]) -> QuerySet[Any]:
        """Return the queryset with the values of this key, until the next call."""
        for part, value in zip(self.parts, key, strict=True):
            part.value = value
        return self.queryset

    def read(self, key: Sequence[Any]) -> Iterable[Sequence[Any]]:
        """Run the statement with this key, and return the columns of its rows, as `values_list()` yields them."""
        self.beyond(key)
        compiler = self.compiler
        try:
            sql, parameters = self._as_sql()
        except EmptyResultSet:
            return ()
        with compiler.connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            rows: list[Sequence[Any]] = cursor.fetchall()
        if self.converters is None:
            self.converters = compiler.get_converters([expression for expression, _, _ in compiler.select])
        return compiler.apply_converters(rows, self.converters) if self.converters else rows

    def _as_sql(self, *args: Any, **kwargs: Any) -> tuple[str, tuple[Any, ...]]:
        if self.made is None:
            self.made = self.make(*args, **kwargs)
        sql, parameters = self.made
        given = tuple(each.parameter(self.compiler) if isinstance(each, Part) else each for each in parameters)
        return fitted(sql, given, self.compiler.connection)


def streamed(queryset: QuerySet[Any], size: int) -> Iterator[Any]:
    """Return what `iterator()` yields, at most `size` rows; the database is done with them before the first one."""
    if queryset._prefetch_related_lookups:
        return queryset._iterator(False, size)
    return iter(queryset._iterable_class(queryset, chunked_fetch=False, chunk_size=size))


def plain_columns(queryset: QuerySet[Any]) -> list[str] | None:
    """Return the columns that instances are made from; None if they have more or less than their model's columns."""
    query, options = queryset.query, queryset.model._meta
    more = query.select_related or query.annotations or query.extra or queryset._known_related_objects
    more = more or queryset._iterable_class is not ModelIterable
    if more or queryset._prefetch_related_lookups or query.deferred_loading != (frozenset(), True):
        return None
    if getattr(queryset, "_fetch_mode", None) is not getattr(QuerySet(queryset.model), "_fetch_mode", None):
        return None
    return [field.attname for field in options.concrete_fields]
