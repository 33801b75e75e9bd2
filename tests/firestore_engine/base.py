"""The emulator cannot say which kinds there are, so the models do; and all of a namespace goes by one query."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.db import connections
from django.db.backends.base.introspection import TableInfo
from gcloudc.db.backends.datastore import base

BATCH = 400
"""Entities of one commit."""


class DatabaseIntrospection(base.DatabaseIntrospection):
    def get_table_list(self, cursor: Any) -> list[TableInfo]:
        return [TableInfo(model._meta.db_table, "t") for model in apps.get_models()]


class DatabaseOperations(base.DatabaseOperations):
    def execute_sql_flush(self, sql_list: list[Any]) -> None:
        self.connection.ensure_connection()
        client = self.connection.connection._client
        query = client.query(namespace=self.connection.namespace)
        query.keys_only()
        keys = [entity.key for entity in query.fetch() if not entity.key.kind.startswith("__")]
        for start in range(0, len(keys), BATCH):
            client.delete_multi(keys[start : start + BATCH])


class DatabaseWrapper(base.DatabaseWrapper):
    introspection_class = DatabaseIntrospection
    ops_class = DatabaseOperations


class Router:
    """No content types and permissions are made after each flush: that takes longer than most tests."""

    def allow_migrate(self, db: str, app_label: str, model_name: str | None = None, **hints: Any) -> bool | None:
        ours = isinstance(connections[db], DatabaseWrapper)
        return False if ours and model_name in ("contenttype", "permission") else None
