"""What the expressions of a query consist of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from django.db.models import Aggregate
from django.db.models.expressions import Col, RawSQL
from django.db.models.sql import Query

_VOLATILE = re.compile(
    r"\b(random|random_normal|randomblob|rand|now|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday|"
    r"gen_random_uuid|uuid_generate_v\w+|uuidv[47]|nextval)\s*\(|"
    r"\b(current_(date|time|timestamp)|local(time|timestamp))\b|'now'",
    re.IGNORECASE,
)
"""SQL whose value changes each time it is evaluated."""


def parts_of(expression: Any, *, of_aggregates: bool = True) -> Iterator[Any]:
    """Yield an expression and all its parts, those of subqueries too."""
    yield expression
    if isinstance(expression, Aggregate) and not of_aggregates:
        return
    for each in _sources(expression):
        yield from parts_of(each, of_aggregates=of_aggregates)


def _sources(expression: Any) -> Iterator[Any]:
    if isinstance(expression, Query):
        yield from (*expression.annotations.values(), *expression.select, expression.where, *expression.order_by)
        yield from expression.combined_queries
    elif hasattr(expression, "get_source_expressions"):
        yield from (each for each in expression.get_source_expressions() if each is not None)


def is_volatile(expression: Any) -> bool:
    """Return whether its value changes each time it is evaluated."""
    return any(each == "?" or _VOLATILE.search(_sql(each)) for each in parts_of(expression))


def _sql(part: Any) -> str:
    """Return what a part itself adds to the statement."""
    if isinstance(part, RawSQL):
        return str(part.sql)
    function = getattr(part, "extra", {}).get("function") or getattr(part, "function", None)
    return f"{function}() {getattr(part, 'template', '')}"


def repeats_rows(query: Query) -> bool:
    """Return whether a join may yield a row several times."""
    return bool(query.extra_tables) or any(_is_from_one_to_many(each) for each in query.alias_map.values())


def varies_within_a_row(query: Query, expression: Any) -> bool:
    """Return whether a row that a join repeats may have several values of the expression."""
    parts = list(parts_of(expression, of_aggregates=False))
    if any(isinstance(each, RawSQL) for each in parts) and repeats_rows(query):
        return True
    return any(_is_of_many(query, each.alias) for each in parts if isinstance(each, Col))


def _is_of_many(query: Query, alias: str) -> bool:
    """Return whether a table is on the many side of a join of the query itself."""
    join = query.alias_map.get(alias)
    while join is not None and join.parent_alias is not None:
        if _is_from_one_to_many(join):
            return True
        join = query.alias_map.get(join.parent_alias)
    return False


def _is_from_one_to_many(join: Any) -> bool:
    field = getattr(join, "join_field", None)
    return bool(getattr(field, "one_to_many", False) or getattr(field, "many_to_many", False))
