"""Keys at equal distances in an order of rows. Each is found from the one before, by so many rows of an index: in all
that is one walk along it, by one recursive statement where there is one, else by a statement for each."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from django.db import connections
from django.db.models import Field, QuerySet

from .ordering import Ordering
from .shard import Key
from .statement import Part, Statement, streamed

RECURSIVE = ("postgresql", "sqlite")
"""The databases whose recursive statement is written here."""
_STEP = '"_defer_step"'


def steps(
    keys: QuerySet[Any], ordering: Ordering, size: int, number: int, start: Key | None, *, nulls: bool
) -> list[Key]:
    """So many keys, each `size` rows beyond the one before and the first beyond `start`; fewer if rows have been
    deleted since they were counted."""
    if number < 1:
        return []
    keys = keys.order_by(*ordering.columns(nulls=nulls))
    fields = ordering.fields[-1 if nulls else 0 :]
    first = keys if start is None else keys.filter(ordering.at_least(start, nulls=nulls))
    if len(fields) == 1 and connections[keys.db].vendor in RECURSIVE:
        beyond = keys.filter(ordering.at_least((_Column("key", fields[0]),), nulls=nulls))
        return _at_once(first[size : size + 1], beyond[size : size + 1], number)
    parts = tuple(Part(field) for field in fields)
    beyond = keys.filter(ordering.at_least(parts, nulls=nulls))
    return _one_by_one(first[size : size + 1], Statement(beyond[size : size + 1], parts), number)


def _one_by_one(first: QuerySet[Any], beyond: Statement, number: int) -> list[Key]:
    found: list[Key] = []
    key = next(streamed(first, 1), None)
    while key is not None:
        found.append(tuple(key))
        key = next(streamed(beyond.beyond(key), 1), None) if len(found) < number else None
    return found


class _Column(Part):
    """A column of the statement's own table, which goes with the rows that are asked for."""

    def __init__(self, name: str, field: Field[Any, Any]) -> None:
        super().__init__(field)
        self.name = name

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        return f'{_STEP}."{self.name}"', ()


def _at_once(first: QuerySet[Any], beyond: QuerySet[Any], number: int) -> list[Key]:
    """Both are of one row, and of one column."""
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
    """The key so many rows beyond the first of two, and not beyond the second, of each; none where rows have been
    deleted. The databases are those of `RECURSIVE`. PostgreSQL finds all in one statement; in SQLite an OFFSET can be
    no column, and a statement costs next to nothing."""
    (field,), connection = ordering.fields, connections[keys.db]
    within = ordering.at_least((_Column("key", field),)) & ordering.below((_Column("until", field),), closed=True)
    compiler = _compiler(keys.filter(within).order_by(*ordering.columns()))
    row, row_with = compiler.as_sql()
    given = [
        (number, *(field.get_db_prep_value(part, connection) for part in (*key, *until)), rows)
        for number, (key, until, rows) in enumerate(wanted)
    ]
    if connection.vendor != "postgresql":
        sql = _look_up(f"{row} LIMIT 1 OFFSET %s", "(%s, %s, %s, %s)")
        return [key for each in given for key in _found(compiler, sql, (*each, *row_with, each[-1]))]
    value = f"CAST(%s AS {field.cast_db_type(connection)})"
    sql = _look_up(f'{row} LIMIT 1 OFFSET {_STEP}."rows"', ", ".join([f"(%s, {value}, {value}, %s)"] * len(given)))
    return _found(compiler, sql, (*chain.from_iterable(given), *row_with)) if given else []


def _look_up(row: str, values: str) -> str:
    columns = '"number", "key", "until", "rows"'
    return f'WITH {_STEP}({columns}) AS (VALUES {values}) SELECT ({row}) FROM {_STEP} ORDER BY "number"'


def _compiler(queryset: QuerySet[Any]) -> Any:
    return queryset.query.get_compiler(using=queryset.db)


def _found(compiler: Any, sql: str, parameters: Sequence[Any]) -> list[Key]:
    """What a statement finds of the only column of a compiled query. PostgreSQL would look a key up once more to leave
    out, by itself, where there is none."""
    with compiler.connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        rows = [row for row in cursor.fetchall() if row[0] is not None]
    return [tuple(row) for row in compiler.apply_converters(rows, compiler.get_converters([compiler.select[0][0]]))]
