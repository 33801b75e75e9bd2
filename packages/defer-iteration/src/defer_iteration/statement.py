"""What Django does for every page and for every row, done once.

The SQL of a query is made each time the query is run, which takes as long as the instances of a few dozen rows: here it
is made once, and run with another key for each page. And to every instance Django adds what else the caller asked for
(annotations, related instances); where that is nothing, instances are made of their columns by `from_db`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.db.models import Field, QuerySet, Value
from django.db.models.query import ModelIterable


class Part(Value):
    """A part of a key, as it is when the statement is run."""

    def __init__(self, field: Field[Any, Any]) -> None:
        super().__init__(None, output_field=field)

    def copy(self) -> Part:
        return self  # wherever a query has it, it is the one that is given values

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        sql, _ = super().as_sql(compiler, connection)
        return sql, (self,)

    def parameter(self, compiler: Any) -> Any:
        """Its value as the database takes it."""
        return super().as_sql(compiler, compiler.connection)[1][0]


class Statement:
    """A queryset whose conditions have parts of a key in them; its SQL is made when it is first run."""

    def __init__(self, queryset: QuerySet[Any], parts: Sequence[Part]) -> None:
        self.queryset, self.parts = queryset, parts
        self.compiler = queryset.query.get_compiler(using=queryset.db)
        self.make = self.compiler.as_sql
        self.made: tuple[str, Sequence[Any]] | None = None
        self.compiler.as_sql = self._as_sql
        queryset.query.get_compiler = lambda *args, **kwargs: self.compiler

    def beyond(self, key: Sequence[Any]) -> QuerySet[Any]:
        """The queryset with this key in it, until the next call."""
        for part, value in zip(self.parts, key, strict=True):
            part.value = value
        return self.queryset

    def _as_sql(self, *args: Any, **kwargs: Any) -> tuple[str, tuple[Any, ...]]:
        if self.made is None:
            self.made = self.make(*args, **kwargs)
        sql, parameters = self.made
        return sql, tuple(each.parameter(self.compiler) if isinstance(each, Part) else each for each in parameters)


def streamed(queryset: QuerySet[Any], size: int) -> Iterator[Any]:
    """What `iterator()` gives, of at most `size` rows that the database is done with before the first is given."""
    if queryset._prefetch_related_lookups:
        return queryset._iterator(False, size)
    return iter(queryset._iterable_class(queryset, chunked_fetch=False, chunk_size=size))


def plain_columns(queryset: QuerySet[Any]) -> list[str] | None:
    """The columns of which instances are made; None where an instance has more or less than its model's columns."""
    query, options = queryset.query, queryset.model._meta
    more = query.select_related or query.annotations or query.extra or queryset._known_related_objects
    more = more or queryset._iterable_class is not ModelIterable
    if more or queryset._prefetch_related_lookups or query.deferred_loading != (frozenset(), True):
        return None
    if getattr(queryset, "_fetch_mode", None) is not getattr(QuerySet(queryset.model), "_fetch_mode", None):
        return None
    return [field.attname for field in options.concrete_fields]
