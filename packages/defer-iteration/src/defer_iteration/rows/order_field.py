"""Which fields and annotations a queryset can be ordered by, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.core.exceptions import FieldDoesNotExist, FieldError
from django.db import connections
from django.db.models import DateTimeField, DecimalField, F, Field, GeneratedField, Q, QuerySet, Value
from django.db.models.functions import Cast
from django.db.models.functions.datetime import TruncBase

from ..errors import IterationRefusedError
from .expressions import is_volatile, parts_of, varies_within_a_row
from .ordering import Ordering
from .stored import StoredField, as_stored, is_column, is_exact, of_column

_VALUE, _KEY = "_defer_order_value", "_defer_key"
_DIGITS = 15
"""How many decimal digits a floating-point number keeps."""


@dataclass(frozen=True, kw_only=True)
class _OrderValue:
    """What rows are ordered by."""

    path: str
    """Its lookup path."""
    field: Field[Any, Any]
    """The field of its values."""
    attribute: str | None
    """The attribute of an instance that has it, or None."""
    nullable: bool
    """Whether it may be NULL."""


def ordered(queryset: QuerySet[Any], order_field: str, *, in_sql: bool = True) -> tuple[QuerySet[Any], Ordering]:
    """Return a queryset whose rows have all parts of their keys, and its ordering by a field. Raise
    IterationRefusedError for a field that is unknown, or whose values cannot be compared with what is stored."""
    queryset, key = _by_key(queryset, in_sql)
    options = queryset.model._meta
    if order_field in ("pk", options.pk.name, options.pk.attname):
        return queryset, key
    find = _annotation if order_field in queryset.query.annotations else _field
    return _by_value(queryset, key, find(queryset, order_field), in_sql=in_sql)


def check_finite(queryset: QuerySet[Any], ordering: Ordering) -> None:
    """Raise IterationRefusedError for rows with an infinite date or time, which psycopg2 reads as the first or last one
    that Python has: a page beyond it would begin elsewhere. (psycopg 3 does not read them.)"""
    if not _is_psycopg2(queryset.db):
        return
    for name, field in zip(ordering.names, ordering.fields, strict=True):
        column = of_column(field.of if isinstance(field, StoredField) else field)
        if column.get_internal_type() in ("DateField", "DateTimeField"):
            infinite = (Q(**{name: Cast(Value(each), type(column)())}) for each in ("-infinity", "infinity"))
            if queryset.filter(next(infinite) | next(infinite)).exists():
                raise IterationRefusedError(
                    f"The order is by {ordering.bounds or name!r}, which is infinite in some rows, and psycopg2 reads "
                    "such a date as another one: order by another field, or leave these rows out."
                )


def _is_psycopg2(alias: str) -> bool:
    if connections[alias].vendor != "postgresql":
        return False
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    return not is_psycopg3


def _by_key(queryset: QuerySet[Any], in_sql: bool) -> tuple[QuerySet[Any], Ordering]:
    options, vendor = queryset.model._meta, connections[queryset.db].vendor
    fields = list(getattr(options, "pk_fields", [options.pk]))
    order = ["pk"] if len(fields) == 1 else [field.attname for field in fields]
    names = list(order)
    attributes = [field.attname for field in fields]
    bounds = None
    for index, field in enumerate(fields):
        _check_digits("its primary key", field, vendor)
        if in_sql and not is_exact(field, vendor):
            bounds = bounds or (names[0] if index == 0 else None)
            queryset = _annotated(queryset, f"{_KEY}_{index}", as_stored(names[index], field, vendor))
            names[index] = attributes[index] = f"{_KEY}_{index}"
            fields[index] = queryset.query.annotations[names[index]].output_field
    return queryset, Ordering(
        names=tuple(names), order=tuple(order), fields=tuple(fields), attributes=tuple(attributes), bounds=bounds
    )


def _by_value(
    queryset: QuerySet[Any], key: Ordering, value: _OrderValue, *, in_sql: bool
) -> tuple[QuerySet[Any], Ordering]:
    """Return the queryset and its ordering by a value, which its instances have as an attribute then."""
    path, field, attribute = value.path, value.field, value.attribute
    query, vendor, name, bounds = queryset.query, connections[queryset.db].vendor, path, None
    computed = path in query.annotations and not is_column(query.annotations[path])
    if in_sql and (computed or not is_exact(field, vendor)):
        queryset = _annotated(queryset, _VALUE, as_stored(path, field, vendor))
        name, attribute, bounds = _VALUE, _VALUE, path
        field = queryset.query.annotations[_VALUE].output_field
    elif attribute is None or query.deferred_loading[0]:
        queryset, attribute = _annotated(queryset, _VALUE, F(path)), _VALUE
    return queryset, Ordering(
        names=(name, *key.names),
        order=(name if computed else path, *key.order),
        fields=(field, *key.fields),
        attributes=(attribute, *key.attributes),
        valued=True,
        nullable=value.nullable,
        bounds=bounds,
    )


def _annotated(queryset: QuerySet[Any], name: str, value: Any) -> QuerySet[Any]:
    """Return the queryset with one more annotation. (django-model-utils sets only those of the last call.)"""
    found = queryset.annotate(**{name: value})
    if hasattr(queryset, "_annotated"):
        found._annotated = [*queryset._annotated, name]
    return found


def _field(queryset: QuerySet[Any], order_field: str) -> _OrderValue:
    """Return the value of a field. Raise IterationRefusedError if it is unknown, or has several values a row."""
    try:
        path, field, _, rest = queryset.query.names_to_path(order_field.split("__"), queryset.model._meta)
    except (FieldError, FieldDoesNotExist) as error:
        raise IterationRefusedError(f"order_field is {order_field!r}: {error}") from error
    if rest or any(step.m2m for step in path) or not hasattr(field, "attname") or field.column is None:
        raise _of_several_values(order_field)
    _check_digits(f"order_field is {order_field!r},", field, connections[queryset.db].vendor)
    joined = path[:-1] if field.remote_field else path
    if any(map(_may_lose, joined)):
        raise IterationRefusedError(
            f"order_field is {order_field!r}, by a relation that may lead to no row, though not null=True: the rows "
            "that its join leaves out would not be passed. Annotate with a Subquery() and order by that."
        )
    *before, _ = order_field.split("__")
    return _OrderValue(
        path="__".join([*before, field.attname]),
        field=field,
        attribute=None if before else field.attname,
        nullable=_may_be_null(field) or any(map(_is_outer, path)),
    )


def _may_be_null(field: Field[Any, Any]) -> bool:
    """Return whether a column may be NULL. A generated or unmanaged one may, whatever the field says."""
    return field.null or isinstance(field, GeneratedField) or not field.model._meta.managed


def _is_outer(step: Any) -> bool:
    """Return whether the join of a relation keeps rows that have no row at its other end."""
    return step.join_field.null or not step.direct


def _may_lose(step: Any) -> bool:
    """Return whether a join may leave out rows that exist."""
    field = step.join_field
    return not _is_outer(step) and (not getattr(field, "db_constraint", True) or not field.model._meta.managed)


def _annotation(queryset: QuerySet[Any], name: str) -> _OrderValue:
    """Return the value of an annotation. Raise IterationRefusedError if its values, as Django reads them, are not those
    that the database compares: a page beyond one of them would begin elsewhere."""
    query = queryset.query
    if name not in query.annotation_select:
        raise IterationRefusedError(f"order_field is {name!r}, an alias(): make it an annotate().")
    expression = query.annotations[name]
    if varies_within_a_row(query, expression):
        raise _of_several_values(name)
    if getattr(expression, "contains_over_clause", False):
        raise IterationRefusedError(
            f"order_field is {name!r}, a window function, whose value depends on the rows of the page: order by a "
            "column, or by a Subquery()."
        )
    if is_volatile(expression):
        raise IterationRefusedError(
            f"order_field is {name!r}, whose value changes each time it is evaluated: order by a column, or by an "
            "expression of columns."
        )
    try:
        field = expression.output_field
    except FieldError as error:
        raise IterationRefusedError(f"order_field is {name!r}: {error}") from error
    if any(isinstance(each, TruncBase) and _is_shifted(each) for each in parts_of(expression)):
        raise IterationRefusedError(
            f"order_field is {name!r}, a time that is truncated in a time zone, whose value changes when read from and "
            "written to the database: order by the column itself."
        )
    vendor = connections[queryset.db].vendor
    if is_column(expression):
        _check_digits(f"order_field is {name!r},", field, vendor)
    elif isinstance(field, DecimalField) and vendor == "sqlite":
        raise IterationRefusedError(
            f"order_field is {name!r}, a decimal that SQLite computes in floating point: order by a column, or Cast() "
            "it to a FloatField."
        )
    return _OrderValue(path=name, field=field, attribute=name, nullable=True)


def _of_several_values(order_field: str) -> IterationRefusedError:
    return IterationRefusedError(f"order_field is {order_field!r}: a row must have one value of it, in a column.")


def _is_shifted(cut: TruncBase) -> bool:
    """Return whether a time is truncated in a zone other than the database's."""
    return isinstance(cut.output_field, DateTimeField) and cut.get_tzname() not in (None, "UTC")


def _check_digits(what: str, field: Field[Any, Any], vendor: str) -> None:
    """Raise IterationRefusedError for decimals that SQLite rounds."""
    field = of_column(field)
    if vendor == "sqlite" and isinstance(field, DecimalField) and (field.max_digits or _DIGITS + 1) > _DIGITS:
        raise IterationRefusedError(
            f"{what} a decimal of {field.max_digits} digits, of which SQLite keeps {_DIGITS}: order by another field, "
            f"or let it have max_digits={_DIGITS}."
        )
