"""Task records as rows of a Django database, in the caller's transaction if there is one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar, Self

from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections, router, transaction
from django.db.models import QuerySet, Value
from django.db.models.functions import Concat, Substr
from django.db.models.sql import InsertQuery

from defer_core.errors import ConfigError
from defer_core.record import State, TaskRecord, new_id
from defer_core.stores.base import ForgetList, TaskStore

from .models import DeferredTask, to_column

log = logging.getLogger("defer")

FORGET = 10
"""Records to forget that a put waits for: with them it is a transaction of two statements, without it is an INSERT."""
TOKEN = 20
"""Random digits of a lease; the rest of its 32 are the record's."""


class DjangoTaskStore(TaskStore):
    """Keeps records in the table of DeferredTask, on one database alias."""

    name: ClassVar[str] = "django"
    supports_transactional_outside: ClassVar[bool] = True

    def __new__(cls, *, alias: str = DEFAULT_DB_ALIAS) -> Self:
        """A Datastore behind Django has no SQL for the rows to be taken by."""
        if cls is DjangoTaskStore and is_datastore(alias):
            from .datastore import DatastoreTaskStore

            return object.__new__(DatastoreTaskStore)  # type: ignore[return-value]
        return object.__new__(cls)

    def __init__(self, *, alias: str = DEFAULT_DB_ALIAS) -> None:
        super().__init__()
        self.forgotten = ForgetList(least=FORGET)
        self.alias = alias
        self._by_alias: dict[str, Any] = {alias: self}
        self._has_table = False

    def has_alias(self, alias: str) -> bool:
        """Whether the project has a database `alias` that our table is meant to be in."""
        return alias in connections and bool(router.allow_migrate_model(alias, DeferredTask))

    def using(self, alias: str | None) -> Self:
        if alias is None or alias == self.alias:
            return self
        if alias not in self._by_alias:
            made = DjangoTaskStore(alias=alias)
            made._by_alias = self._by_alias
            self._by_alias.setdefault(alias, made)
        found: Self = self._by_alias[alias]
        return found

    def everywhere(self) -> tuple[Self, ...]:
        others = [alias for alias in connections if alias != self.alias and self.has_alias(alias)]
        return self, *(store for store in map(self.using, others) if store._answers())

    def _answers(self) -> bool:
        """Whether our table is here. A database that is down keeps no other from being swept."""
        try:
            return self.has_table()
        except DatabaseError:
            log.exception("The database %r cannot be asked for task records.", self.alias)
            return False

    def has_table(self) -> bool:
        """Whether `migrate` has made our table here; asks the database until it has."""
        if not self._has_table:
            connection = connections[self.alias]
            self._has_table = DeferredTask._meta.db_table in connection.introspection.table_names()
        return self._has_table

    @property
    def _rows(self) -> QuerySet[DeferredTask]:
        return DeferredTask._base_manager.using(self.alias)

    def put(self, records: Sequence[TaskRecord], forget: Sequence[str] = ()) -> None:
        """One INSERT, one DELETE for `forget`, and no signals: a receiver of every model's may itself defer."""
        rows = [DeferredTask.from_record(record) for record in records]
        together = len(rows) > 1 or (rows and forget)
        with self._table(), self._atomic() if together else nullcontext():
            if len(rows) == 1:
                self._insert(rows[0])
            elif rows:
                self._rows.bulk_create(rows)
            if forget:
                delete(self._rows.filter(pk__in=list(forget), state=State.PENDING.value))

    def _insert(self, row: DeferredTask) -> None:
        """A bare INSERT: where autocommit suffices, no BEGIN and COMMIT around it."""
        query = InsertQuery(DeferredTask)
        query.insert_values(DeferredTask._meta.concrete_fields, [row])
        with transaction.mark_for_rollback_on_error(using=self.alias):
            query.get_compiler(using=self.alias).execute_sql()

    def get(self, record_id: str) -> TaskRecord | None:
        with self._table():
            row = self._rows.filter(pk=record_id).first()
        return row.to_record() if row else None

    def delete(self, record_ids: Sequence[str], *, lease: str | None = None) -> int:
        wanted = self._rows.filter(pk__in=list(record_ids))
        with self._table():
            return delete(wanted if lease is None else wanted.filter(lease=lease))

    def lease_due(self, *, now: float, limit: int, seconds: float) -> list[TaskRecord]:
        """The tokens of one call begin alike, so that one UPDATE takes them all, and end with the record's id."""
        token = new_id()[:TOKEN]
        due = self._rows.filter(state=State.PENDING.value, due__lte=now)
        skip = connections[self.alias].features.has_select_for_update_skip_locked
        with self._table(), self._atomic() if skip else nullcontext():
            chosen = due.select_for_update(skip_locked=True) if skip else due
            ids = list(chosen.order_by("due", "pk").values_list("pk", flat=True)[:limit])
            fresh = Concat(Value(token), Substr("pk", 1, 32 - TOKEN))
            if not ids or not due.filter(pk__in=ids).update(lease=fresh, due=now + seconds):
                return []
            rows = {row.pk: row for row in self._rows.filter(pk__in=ids, lease__startswith=token)}
        return [rows[pk].to_record() for pk in ids if pk in rows]

    def mark(self, record_id: str, *, lease: str, new_lease: str = "", **changes: Any) -> bool:
        columns = {name: to_column(value) for name, value in changes.items()}
        with self._table():
            return self._rows.filter(pk=record_id, lease=lease).update(lease=new_lease, **columns) > 0

    def list(self, state: State, *, limit: int = 100, after: str = "") -> list[TaskRecord]:
        rows = self._rows.filter(state=str(state), pk__gt=after).defer("payload").order_by("pk")[:limit]
        with self._table():
            return [row.to_record(payload=None) for row in rows]

    def count(self, state: State) -> int:
        with self._table():
            return self._rows.filter(state=str(state)).count()

    def oldest_pending(self) -> float | None:
        with self._table():
            return (
                self._rows.filter(state=State.PENDING.value)
                .order_by("created")
                .values_list("created", flat=True)
                .first()
            )

    def transaction(self) -> AbstractContextManager[Any]:
        return transaction.atomic(using=self.alias)

    def _atomic(self) -> AbstractContextManager[Any]:
        """Statements that belong together; no savepoint where there is a transaction."""
        return transaction.atomic(using=self.alias, savepoint=False)

    def in_transaction(self) -> bool:
        connection = connections[self.alias]
        if connection.in_atomic_block:
            return True
        connected = connection.connection is not None
        if not (connection.autocommit if connected else connection.settings_dict["AUTOCOMMIT"]):
            raise ConfigError(
                f"Autocommit is off on the database {self.alias!r} and no `atomic` block is open, so nobody can tell "
                "when a task's transaction commits: use `transaction.atomic()`, or turn autocommit on."
            )
        return False

    def on_commit(self, func: Callable[[], object]) -> None:
        transaction.on_commit(func, using=self.alias, robust=True)

    @contextmanager
    def _table(self) -> Iterator[None]:
        """A missing table is said to be one. Raises ConfigError."""
        try:
            yield
        except DatabaseError as error:
            if DeferredTask._meta.db_table in str(error) and _says_missing(error):
                raise ConfigError(
                    f"The database {self.alias!r} has no table {DeferredTask._meta.db_table}: "
                    f"run `manage.py migrate --database {self.alias}`, or name another alias with `_using`."
                ) from error
            raise


def is_datastore(alias: str) -> bool:
    """Whether an alias is a Datastore (`gcloudc`). An unknown alias is none."""
    return alias in connections and any(
        each.__module__.startswith("gcloudc.") for each in type(connections[alias]).__mro__
    )


def _says_missing(error: DatabaseError) -> bool:
    """Whether a database says that a table is not there (SQLite, PostgreSQL, MySQL and Oracle in this order)."""
    text = str(error).lower()
    return any(phrase in text for phrase in ("no such table", "does not exist", "doesn't exist"))


def delete(rows: QuerySet[DeferredTask]) -> int:
    """One DELETE, without signals and without looking for what points at the rows, for nothing does."""
    return rows._raw_delete(rows.db)
