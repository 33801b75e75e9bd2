"""Values as they are stored.

A value often changes when Django reads it from the database and writes it back: a time of which SQLite keeps fewer
digits, a number of another type than its expression says, a value that a custom field decrypts. To be compared with,
such values go back to the database as they came from it.
"""

from __future__ import annotations

from typing import Any

from django.db.models import Field, FloatField, Func
from django.db.models.expressions import Col
from django.db.models.functions import Cast

_EXACT = {
    "AutoField", "BigAutoField", "BigIntegerField", "BooleanField", "CharField", "DateField", "IntegerField",
    "PositiveBigIntegerField", "PositiveIntegerField", "PositiveSmallIntegerField", "SlugField", "SmallAutoField",
    "SmallIntegerField", "TextField", "UUIDField",
}  # fmt: skip
_EXACT_BY_TYPE = _EXACT | {"DateTimeField", "DecimalField", "DurationField", "FloatField", "TimeField"}
"""The same, for databases whose columns have types."""


class StoredField(Field):
    """A field whose values are those of the driver."""

    def __init__(self, of: Field[Any, Any]) -> None:
        super().__init__()
        self.of = of

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Return the value of the driver; a memoryview could not travel."""
        return bytes(value) if isinstance(value, memoryview) else value

    def cast_db_type(self, connection: Any) -> str | None:
        return self.of.cast_db_type(connection)


class Stored(Func):
    """An expression whose value is not converted."""

    template = "%(expressions)s"
    arity = 1

    def _resolve_output_field(self) -> Field[Any, Any]:
        return StoredField(self.get_source_expressions()[0].output_field)

    def select_format(self, compiler: Any, sql: str, params: Any) -> tuple[str, Any]:
        """Make an expression of a column: SQLite's driver converts columns by their declared types."""
        column = compiler.connection.vendor == "sqlite" and is_column(self.get_source_expressions()[0])
        return super().select_format(compiler, f"+{sql}" if column else sql, params)

    def get_group_by_cols(self) -> list[Any]:
        return [each for source in self.get_source_expressions() for each in source.get_group_by_cols()]


def as_stored(name: str, field: Field[Any, Any], vendor: str) -> Func:
    """Return a column or annotation as it can be compared with. PostgreSQL reads the literal of a float as a numeric,
    which is not always equal to the float."""
    return Cast(name, FloatField()) if vendor == "postgresql" and type(field) is FloatField else Stored(name)


def is_exact(field: Field[Any, Any], vendor: str) -> bool:
    """Return whether a value of a column equals the column once Django has read it and written it back."""
    field = of_column(field)
    if type(field).__module__ != "django.db.models.fields" or not field.model._meta.managed:
        return False
    return field.get_internal_type() in (_EXACT if vendor == "sqlite" else _EXACT_BY_TYPE)


def of_column(field: Field[Any, Any]) -> Field[Any, Any]:
    """Return the field that defines what a column has: for a relation, the field that it refers to."""
    while field.remote_field is not None:
        field = field.target_field
    return field


def is_column(expression: Any) -> bool:
    """Return whether an annotation is a column by another name."""
    return isinstance(expression, Col)
