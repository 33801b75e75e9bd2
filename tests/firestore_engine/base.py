"""The emulator cannot say which kinds there are, so the models do."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.db.backends.base.introspection import TableInfo
from gcloudc.db.backends.datastore import base


class DatabaseIntrospection(base.DatabaseIntrospection):
    def get_table_list(self, cursor: Any) -> list[TableInfo]:
        return [TableInfo(model._meta.db_table, "t") for model in apps.get_models()]


class DatabaseWrapper(base.DatabaseWrapper):
    introspection_class = DatabaseIntrospection
