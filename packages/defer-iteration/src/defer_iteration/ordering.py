"""The order in which a queryset is walked, and comparisons with keys of that order; the database does the comparing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.core.exceptions import FieldDoesNotExist, FieldError
from django.db import connections
from django.db.models import DateTimeField, DecimalField, Field, Q, QuerySet
from django.db.models.expressions import Col
from django.db.models.functions.datetime import TruncBase

from .errors import IterationRefusedError
from .shard import Key, KeyRange


@dataclass(frozen=True, kw_only=True)
class Ordering:
    """By a field, ties broken by primary key; or by primary key alone."""

    fields: tuple[Field[Any, Any], ...]
    """The fields whose values a row's key has."""
    field: str | None = None
    """The lookup path of the field; None orders by primary key."""
    nullable: bool = False
    """Whether rows may have no value of it."""
    attribute: str | None = None
    """The attribute of an instance that has the value, where it is a column of the model itself."""

    def columns(self, *, nulls: bool = False) -> tuple[str, ...]:
        """What to order by."""
        return ("pk",) if self.field is None or nulls else (self.field, "pk")

    def at_least(self, key: Key, *, nulls: bool = False) -> Q:
        """Rows from a key on."""
        return self._beyond(key, "gt", "gte", nulls=nulls)

    def above(self, key: Key, *, nulls: bool = False) -> Q:
        """Rows beyond the key of a row."""
        return self._beyond(key, "gt", "gt", nulls=nulls)

    def below(self, key: Key, *, closed: bool, nulls: bool = False) -> Q:
        """Rows below a key, or (closed) up to it."""
        return self._beyond(key, "lt", "lte" if closed else "lt", nulls=nulls)

    def within(self, bounds: KeyRange) -> Q:
        """Rows of a range."""
        found = Q()
        if self.field is not None and (bounds.nulls or self.nullable):
            found &= Q(**{f"{self.field}__isnull": bounds.nulls})
        if bounds.lower is not None:
            found &= self.at_least(bounds.lower, nulls=bounds.nulls)
        if bounds.upper is not None:
            found &= self.below(bounds.upper, closed=bounds.closed, nulls=bounds.nulls)
        return found

    def _beyond(self, key: Key, strict: str, last: str, *, nulls: bool) -> Q:
        """`strict` compares order values, `last` compares what comes last in the key."""
        if self.field is None or nulls:
            return Q(**{f"pk__{last}": key[-1]})
        if len(key) == 1:
            return Q(**{f"{self.field}__{last}": key[0]})
        beyond = Q(**{f"{self.field}__{strict}": key[0]}) | Q(**{f"pk__{last}": key[1]})
        # the first condition says nothing new, but it is what an index can be searched by
        return Q(**{f"{self.field}__{strict}e": key[0]}) & beyond


def ordering_of(queryset: QuerySet[Any], order_field: str) -> Ordering:
    """The order of a queryset by a field. Raises IterationRefusedError for one that is unknown, or has several
    values a row."""
    options = queryset.model._meta
    if order_field in ("pk", options.pk.name, options.pk.attname):
        return Ordering(fields=(options.pk,))
    if order_field in queryset.query.annotations:
        if order_field not in queryset.query.annotation_select:
            raise IterationRefusedError(f"order_field is {order_field!r}, an alias(): make it an annotate().")
        _check_found_again(queryset, order_field)
        values = queryset.query.annotations[order_field].output_field
        return Ordering(fields=(values, options.pk), field=order_field, nullable=True, attribute=order_field)
    try:
        path, field, _, rest = queryset.query.names_to_path(order_field.split("__"), options)
    except (FieldError, FieldDoesNotExist) as error:
        raise IterationRefusedError(f"order_field is {order_field!r}: {error}") from error
    if rest or any(step.m2m for step in path) or not hasattr(field, "attname"):
        raise IterationRefusedError(f"order_field is {order_field!r}: a row has to have one value of it, in a column.")
    *before, _ = order_field.split("__")
    nullable = field.null or any(step.join_field.null or not step.direct for step in path)
    attribute = None if before else field.attname
    path_to = "__".join([*before, field.attname])
    return Ordering(fields=(field, options.pk), field=path_to, nullable=nullable, attribute=attribute)


def _check_found_again(queryset: QuerySet[Any], name: str) -> None:
    """Raises IterationRefusedError for an annotation whose values, as Django gives them, are not those that the
    database compares: a page beyond one of them would begin somewhere else."""
    expression = queryset.query.annotations[name]
    parts = expression.flatten() if hasattr(expression, "flatten") else [expression]
    if any(isinstance(each, TruncBase) and _is_shifted(each) for each in parts):
        raise IterationRefusedError(
            f"order_field is {name!r}, a time that is cut in a time zone, which the database does not find again: "
            "order by the column itself."
        )
    computed = not isinstance(expression, Col) and isinstance(expression.output_field, DecimalField)
    if computed and connections[queryset.db].vendor == "sqlite":
        raise IterationRefusedError(
            f"order_field is {name!r}, a decimal that SQLite computes in floating point: order by a column, or Cast() "
            "it to a FloatField."
        )


def _is_shifted(cut: TruncBase) -> bool:
    """Whether a time is cut in a zone that is not the database's."""
    return isinstance(cut.output_field, DateTimeField) and cut.get_tzname() not in (None, "UTC")
