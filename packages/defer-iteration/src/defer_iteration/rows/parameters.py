"""How many parameters a statement may have. If a queryset has as many as its database takes, none is left for the key
that a page begins beyond: some of them are then written into the statement."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from typing import Any

_POSTGRESQL = 65_535
"""The most parameters of a statement that are bound by the server."""
_PLACEHOLDER = re.compile("%[%s]")


def most_parameters(connection: Any) -> float:
    """Return how many parameters a statement may have."""
    if connection.vendor == "sqlite":
        connection.ensure_connection()
        return int(connection.connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER))
    bound = connection.settings_dict.get("OPTIONS", {}).get("server_side_binding")
    return _POSTGRESQL if connection.vendor == "postgresql" and bound else float("inf")


def fitted(sql: str, parameters: Sequence[Any], connection: Any) -> tuple[str, tuple[Any, ...]]:
    """Return the statement with no more parameters than it may have."""
    over = len(parameters) - most_parameters(connection)
    if over <= 0:
        return sql, tuple(parameters)
    given, kept = iter(parameters), list[Any]()

    def written(found: re.Match[str]) -> str:
        nonlocal over
        if found[0] == "%%":
            return "%%"
        parameter = next(given)
        if over <= 0 or not isinstance(parameter, int | str) or "\0" in str(parameter):
            kept.append(parameter)
            return "%s"
        over -= 1
        return _literal(parameter, connection).replace("%", "%%")

    return _PLACEHOLDER.sub(written, sql), tuple(kept)


def _literal(parameter: Any, connection: Any) -> str:
    if connection.vendor == "sqlite":
        return str(connection.connection.execute("SELECT quote(?)", (parameter,)).fetchone()[0])
    return str(connection.ops.compose_sql("%s", (parameter,)))
