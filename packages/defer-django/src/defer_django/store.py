"""Task records as rows of a Django database, in the caller's transaction if there is one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial, wraps
from typing import Any, ClassVar, Self, TypeVar, cast

from django.db import DEFAULT_DB_ALIAS, DatabaseError, Error, connections, router, transaction
from django.db.models import Q, QuerySet, Value
from django.db.models.functions import Concat, Substr
from django.db.models.sql import InsertQuery

from defer_core.errors import ConfigError
from defer_core.spi import ForgetList, State, TaskRecord, TaskStore, new_id, read_records

from .models import DeferredTask, to_columns

log = logging.getLogger("defer")

FORGET = 10
"""Records to forget that are collected before a put deletes them: that is a second statement beside its INSERT."""
TOKEN = 20
"""Random digits of a lease; the rest of its 32 are the record's."""

Method = TypeVar("Method", bound=Callable[..., Any])


def reconnecting(method: Method) -> Method:
    """Repeat a call of a store once if its connection is lost: the database, a proxy or the task itself may have closed
    it while the task ran. Inside the caller's transaction nothing is repeated."""

    @wraps(method)
    def called(self: DjangoTaskStore, *args: Any, **kwargs: Any) -> Any:
        used = connections[self.alias].connection
        try:
            return method(self, *args, **kwargs)
        except Error:
            if not self._has_lost(used):
                raise
            return method(self, *args, **kwargs)

    return cast(Method, called)


class DjangoTaskStore(TaskStore):
    """Keeps records in the table of DeferredTask, on one alias of an SQL database; see `stores.task_store`."""

    name: ClassVar[str] = "django"
    for_datastore: ClassVar[bool] = False
    supports_transactional_outside: ClassVar[bool] = True

    def __init__(self, *, alias: str = DEFAULT_DB_ALIAS, make: Callable[..., Any] | None = None) -> None:
        """Use one database; `make` makes the stores of the others, by default of the same class. Raises ConfigError."""
        super().__init__()
        if is_datastore(alias) is not self.for_datastore:
            raise ConfigError(
                f"{type(self).__name__} is not made for the database {alias!r}: set the store to 'django', or use "
                f"defer_django.stores.task_store(alias={alias!r})."
            )
        self.forgotten = ForgetList(least=FORGET)
        self.alias = alias
        self._make = make or type(self)
        self._by_alias: dict[str, Any] = {alias: self}
        self._has_table = False

    def has_alias(self, alias: str) -> bool:
        """Tell whether the project has a database `alias` that may have our table."""
        return alias in connections and bool(router.allow_migrate_model(alias, DeferredTask))

    def using(self, alias: str | None) -> Self:
        if alias is None or alias == self.alias:
            return self
        if alias not in self._by_alias:
            made = self._make(alias=alias)
            made._by_alias = self._by_alias
            self._by_alias.setdefault(alias, made)
        found: Self = self._by_alias[alias]
        return found

    def everywhere(self) -> tuple[Self, ...]:
        others = [alias for alias in connections if alias != self.alias and self.has_alias(alias)]
        first = () if is_forbidden(self.alias) else (self,)
        return *first, *(store for store in map(self.using, others) if store._answers())

    def _answers(self) -> bool:
        """Tell whether our table exists. A database that is down must not stop the sweep of others."""
        if is_forbidden(self.alias):
            return False
        try:
            with self.briefly():
                return self.has_table()
        except DatabaseError:
            log.exception("Task records in the database %r cannot be read.", self.alias)
            return False

    def has_table(self) -> bool:
        """Tell whether `migrate` has made our table; query the database until it has."""
        if not self._has_table:
            connection = connections[self.alias]
            self._has_table = DeferredTask._meta.db_table in connection.introspection.table_names()
        return self._has_table

    @contextmanager
    def briefly(self) -> Iterator[None]:
        connection = connections[self.alias]
        is_open = connection.connection is not None
        try:
            yield
        finally:
            if not is_open and not connection.in_atomic_block:
                connection.close()

    @property
    def _rows(self) -> QuerySet[DeferredTask]:
        return DeferredTask._base_manager.using(self.alias)

    def _has_lost(self, used: Any) -> bool:
        """Tell whether the driver's connection `used` is lost, and let the next statement make a new one.

        Django has made it already if a transaction of the call itself could not be rolled back.
        """
        connection = connections[self.alias]
        if used is None or connection.in_atomic_block or (connection.connection is used and connection.is_usable()):
            return False
        if connection.connection is used:
            connection.close()
        return True

    @reconnecting
    def put(self, records: Sequence[TaskRecord], forget: Sequence[str] = ()) -> None:
        """Write with one INSERT, and one DELETE for `forget`. Send no signals: a receiver might itself defer."""
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
        """Insert without BEGIN and COMMIT if autocommit is enough."""
        query = InsertQuery(DeferredTask)
        query.insert_values(DeferredTask._meta.concrete_fields, [row])
        with transaction.mark_for_rollback_on_error(using=self.alias):
            query.get_compiler(using=self.alias).execute_sql()

    @reconnecting
    def get(self, record_id: str) -> TaskRecord | None:
        with self._table():
            row = self._rows.filter(pk=record_id).first()
        return row.to_record() if row else None

    @reconnecting
    def delete(self, record_ids: Sequence[str], *, lease: str | None = None) -> int:
        wanted = self._rows.filter(pk__in=list(record_ids))
        with self._table():
            return delete(wanted if lease is None else wanted.filter(lease=lease))

    @reconnecting
    def lease_due(self, *, now: float, limit: int, seconds: float, state: State = State.PENDING) -> list[TaskRecord]:
        due = self._rows.filter(state=str(state), due__lte=now)
        with self._table():
            while (rows := self._lease(due, now, limit, seconds)) is not None:
                if records := read_records(rows, DeferredTask.to_record):
                    return records
                # other processes took them all, and they are no longer due: choose again
        return []

    def _lease(
        self, due: QuerySet[DeferredTask], now: float, limit: int, seconds: float
    ) -> Sequence[DeferredTask] | None:
        """Choose due rows and return those that this call could lease; None if nothing is due.

        The tokens of one call begin alike, so that one UPDATE sets them all, and end with the record's id.
        """
        token = new_id()[:TOKEN]
        skip = connections[self.alias].features.has_select_for_update_skip_locked
        with self._atomic() if skip else nullcontext():
            chosen = due.select_for_update(skip_locked=True) if skip else due
            ids = [*chosen.order_by("due", "pk").values_list("pk", flat=True)[:limit]]
            if not ids:
                return None
            fresh = Concat(Value(token), Substr("pk", 1, 32 - TOKEN))
            if not due.filter(pk__in=ids).update(lease=fresh, due=now + seconds):
                return ()
            rows = {row.pk: row for row in self._rows.filter(pk__in=ids, lease__startswith=token)}
        return [rows[pk] for pk in ids if pk in rows]

    @reconnecting
    def mark(self, record_id: str, *, lease: str, new_lease: str = "", **changes: Any) -> bool:
        with self._table():
            return self._rows.filter(pk=record_id, lease=lease).update(lease=new_lease, **to_columns(changes)) > 0

    @reconnecting
    def list(self, state: State, *, limit: int = 100, after: str = "") -> list[TaskRecord]:
        rows = self._rows.filter(state=str(state), pk__gt=after).defer("payload").order_by("pk")[:limit]
        with self._table():
            return read_records(rows, partial(DeferredTask.to_record, payload=None))

    @reconnecting
    def count(self, state: State, *, due: float | None = None) -> int:
        rows = self._rows.filter(state=str(state))
        with self._table():
            return rows.count() if due is None else rows.filter(due__lte=due).count()

    @reconnecting
    def count_unverified(self) -> int:
        with self._table():
            return self._rows.filter(verified=False, state=State.DEAD.value).count()

    @reconnecting
    def count_dead(self, since: float) -> int:
        with self._table():
            return self._rows.filter(last_attempt__gte=since, state=State.DEAD.value).count()

    @reconnecting
    def expire(self, before: float, *, limit: int) -> int:
        attempted, never = Q(last_attempt__lt=before), Q(last_attempt=None, created__lt=before)
        gone = 0
        for old in (attempted, never):  # each by its own index
            rows = self._rows.filter(old, state=State.DEAD.value)
            if ids := [*rows.values_list("pk", flat=True)[: limit - gone]]:
                gone += delete(rows.filter(pk__in=ids))
        return gone

    @reconnecting
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
        """Group statements; inside a transaction without a savepoint."""
        return transaction.atomic(using=self.alias, savepoint=False)

    def in_transaction(self) -> bool:
        connection = connections[self.alias]
        if connection.in_atomic_block:
            return not self._is_in_a_test_alone()
        connected = connection.connection is not None
        if not (connection.autocommit if connected else connection.settings_dict["AUTOCOMMIT"]):
            raise ConfigError(
                f"Autocommit is off on the database {self.alias!r} and no `atomic` block is open, so defer cannot know "
                "when the transaction commits: use `transaction.atomic()`, or turn autocommit on."
            )
        return False

    def _is_in_a_test_alone(self) -> bool:
        """Tell whether the only transaction is that of a TestCase around its test, which the project does not know."""
        blocks: list[Any] = connections[self.alias].atomic_blocks
        return bool(blocks) and all(block._from_testcase for block in blocks)

    def on_commit(self, func: Callable[[], object]) -> None:
        self._after_commit(func, robust=True)

    def on_commit_or_raise(self, func: Callable[[], object]) -> None:
        self._after_commit(func, robust=False)

    def _after_commit(self, func: Callable[[], object], *, robust: bool) -> None:
        if self._is_in_a_test_alone():
            func()
        else:
            transaction.on_commit(func, using=self.alias, robust=robust)

    @contextmanager
    def _table(self) -> Iterator[None]:
        """Raise ConfigError for a missing table."""
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
    """Tell whether an alias is a Datastore (`gcloudc`); an unknown alias is not."""
    return alias in connections and any(
        each.__module__.startswith("gcloudc.") for each in type(connections[alias]).__mro__
    )


def is_forbidden(alias: str) -> bool:
    """Tell whether Django or pytest-django forbids the running test to use this database."""
    connection = connections[alias]
    blocker = getattr(connection.ensure_connection, "__self__", None)
    return type(connection.connect).__name__ == "_DatabaseFailure" or type(blocker).__name__ == "DjangoDbBlocker"


def _says_missing(error: DatabaseError) -> bool:
    """Recognise the error of a missing table (of SQLite, of PostgreSQL and Oracle, of MySQL)."""
    text = str(error).lower()
    return any(phrase in text for phrase in ("no such table", "does not exist", "doesn't exist"))


def delete(rows: QuerySet[DeferredTask]) -> int:
    """Delete in one statement, without signals or a search for rows that refer to these: there are none."""
    return rows._raw_delete(rows.db)
