"""Keys at equal distances in the order of rows. Each is found from the one before, a number of rows further on in an
index: one walk along it in all, by one recursive statement if the database has it, else by one statement a key."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.db.models import Field, QuerySet

from ..model.shard import Key
from .compiled import Part, Statement, streamed
from .ordering import Ordering
from .parameters import most_parameters

_RECURSIVE = ("postgresql", "sqlite")
"""The databases that are walked by one recursive statement."""
_STEP = '"_defer_step"'
_OWN = 6
"""The most parameters that a statement has besides the queryset's."""


def at_once(keys: QuerySet[Any], ordering: Ordering, *, nulls: bool = False) -> bool:
    """Return whether one statement can find them all. It contains the conditions of the queryset twice."""
    connection = connections[keys.db]
    if len(ordering.columns(nulls=nulls)) > 1 or connection.vendor not in _RECURSIVE:
        return False
    try:
        _, parameters = _compiler(keys).as_sql()
    except EmptyResultSet:
        return False
    return 2 * len(parameters) + _OWN <= most_parameters(connection)


def steps(
    keys: QuerySet[Any], ordering: Ordering, size: int, number: int, start: Key | None, *, nulls: bool
) -> list[Key]:
    """Return `number` keys, each `size` rows beyond the one before, the first beyond `start`; fewer if rows were
    deleted since they were counted."""
    if number < 1:
        return []
    keys = ordering.ordered(keys, nulls=nulls)
    fields = ordering.fields[-len(ordering.pk) :] if nulls else ordering.fields
    first = keys if start is None else keys.filter(ordering.at_least(start, nulls=nulls))
    first = first[size : size + 1]
    if at_once(keys, ordering, nulls=nulls):
        column = _Column("key", fields[0])
        beyond = keys.filter(ordering.at_least((column,), nulls=nulls))
        return _at_once(first, beyond[size : size + 1], number)
    parts = tuple(Part(field) for field in fields)
    beyond = keys.filter(ordering.at_least(parts, nulls=nulls))
    return _one_by_one(Statement(first, ()), Statement(beyond[size : size + 1], parts), number)


def _one_by_one(first: Statement, beyond: Statement, number: int) -> list[Key]:
    found: list[Key] = []
    key = next(streamed(first.beyond(()), 1), None)
    while key is not None:
        found.append(tuple(key))
        key = next(streamed(beyond.beyond(key), 1), None) if len(found) < number else None
    return found


class _Column(Part):
    """A column of the statement's own table of steps."""

    def __init__(self, name: str, field: Field[Any, Any]) -> None:
        super().__init__(field)
        self.name = name

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        return f'{_STEP}."{self.name}"', ()


def _at_once(first: QuerySet[Any], beyond: QuerySet[Any], number: int) -> list[Key]:
    """Find the keys by one statement, from two querysets of one row and one column."""
    compiler = _compiler(first)
    (begin, begin_with), (go_on, go_on_with) = compiler.as_sql(), _compiler(beyond).as_sql()
    sql = (
        f'WITH RECURSIVE {_STEP}("number", "key") AS (SELECT 1, ({begin}) UNION ALL '
        f'SELECT {_STEP}."number" + 1, ({go_on}) FROM {_STEP} '
        f'WHERE {_STEP}."number" < %s AND {_STEP}."key" IS NOT NULL) '
        f'SELECT "key" FROM {_STEP} ORDER BY "number"'
    )
    return _found(compiler, sql, (*begin_with, *go_on_with, number))


def look_up(keys: QuerySet[Any], ordering: Ordering, wanted: Sequence[tuple[Key, Key, int]]) -> list[Key]:
    """Return, for each `(key, until, rows)`, the key that many rows beyond `key`, unless it is beyond `until` because
    rows were deleted. The databases are those of `_RECURSIVE`. PostgreSQL finds all keys by one statement; in SQLite an
    OFFSET cannot be a column, but a statement costs next to nothing."""
    (field,), connection = ordering.fields, connections[keys.db]
    from_key = ordering.at_least((_Column("key", field),))
    up_to = ordering.below((_Column("until", field),), closed=True)
    compiler = _compiler(ordering.ordered(keys.filter(from_key & up_to)))
    row, row_with = compiler.as_sql()
    given = [
        (number, *(field.get_db_prep_value(part, connection) for part in (*key, *until)), rows)
        for number, (key, until, rows) in enumerate(wanted)
    ]
    if connection.vendor != "postgresql":
        sql = _look_up(f"{row} LIMIT 1 OFFSET %s", "(%s, %s, %s, %s)")
        return [key for each in given for key in _found(compiler, sql, (*each, *row_with, each[-1]))]
    if not given:
        return []
    value = f"CAST(%s AS {field.cast_db_type(connection)})"
    values = ", ".join([f"(%s, {value}, {value}, %s)"] * len(given))
    sql = _look_up(f'{row} LIMIT 1 OFFSET {_STEP}."rows"', values)
    return _found(compiler, sql, (*chain.from_iterable(given), *row_with))


def _look_up(row: str, values: str) -> str:
    columns = '"number", "key", "until", "rows"'
    return f'WITH {_STEP}({columns}) AS (VALUES {values}) SELECT ({row}) FROM {_STEP} ORDER BY "number"'


def _compiler(queryset: QuerySet[Any]) -> Any:
    return queryset.query.get_compiler(using=queryset.db)


def _found(compiler: Any, sql: str, parameters: Sequence[Any]) -> list[Key]:
    """Return the keys that a statement finds of the only column of a compiled query. Missing keys are dropped here:
    to drop them itself, PostgreSQL would look up each key once more."""
    with compiler.connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        rows = [row for row in cursor.fetchall() if row[0] is not None]
    converters = compiler.get_converters([compiler.select[0][0]])
    return [tuple(row) for row in compiler.apply_converters(rows, converters)]
