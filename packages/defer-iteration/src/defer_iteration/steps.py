"""Keys at equal distances in an order of rows. Each is found from the one before, by so many rows of an index: in all
that is one walk along it, by one recursive statement where there is one, else by a statement for each."""

from __future__ import annotations

from typing import Any

from django.db import connections
from django.db.models import QuerySet

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
        beyond = keys.filter(ordering.at_least((_Previous(fields[0]),), nulls=nulls))
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


class _Previous(Part):
    """The key of the step before, in a recursive statement."""

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        return f'{_STEP}."key"', ()


def _at_once(first: QuerySet[Any], beyond: QuerySet[Any], number: int) -> list[Key]:
    """Both are of one row, and of one column."""
    compiler = first.query.get_compiler(using=first.db)
    (begin, begin_with), (go_on, go_on_with) = compiler.as_sql(), beyond.query.get_compiler(using=first.db).as_sql()
    sql = (
        f'WITH RECURSIVE {_STEP}("number", "key") AS (SELECT 1, ({begin}) UNION ALL '
        f'SELECT {_STEP}."number" + 1, ({go_on}) FROM {_STEP} '
        f'WHERE {_STEP}."number" < %s AND {_STEP}."key" IS NOT NULL) '
        f'SELECT "key" FROM {_STEP} WHERE "key" IS NOT NULL ORDER BY "number"'
    )
    with connections[first.db].cursor() as cursor:
        cursor.execute(sql, (*begin_with, *go_on_with, number))
        rows = cursor.fetchall()
    return [tuple(row) for row in compiler.apply_converters(rows, compiler.get_converters([compiler.select[0][0]]))]
