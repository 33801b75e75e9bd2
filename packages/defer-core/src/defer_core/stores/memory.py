"""A store in this process's memory, for tests and simulations; its transactions are READ COMMITTED."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

from ..record import State, TaskRecord, new_id
from .base import TaskStore

LOCK_TRIES = 5_000
"""Waits for a row lock before it counts as a deadlock."""


@dataclass
class _Transaction:
    """The work of an open transaction, done at its commit."""

    writes: dict[str, TaskRecord | None] = field(default_factory=dict)
    """Records by id, None for a deleted one."""
    forgets: dict[str, None] = field(default_factory=dict)
    """Ids to delete if their record is pending at the commit (a database would have locked the row until then)."""
    rows: dict[tuple[str, str], Any] = field(default_factory=dict)
    """Rows of other packages: values by table and key, None for a deleted one."""
    hooks: list[Callable[[], object]] = field(default_factory=list)
    """Functions to call after the commit."""

    def absorb(self, inner: _Transaction) -> None:
        """Add the work of a nested transaction."""
        self.writes.update(inner.writes)
        self.forgets.update(inner.forgets)
        self.rows.update(inner.rows)
        self.hooks.extend(inner.hooks)


class MemoryStore(TaskStore):
    """Keeps records in a dict."""

    name: ClassVar[str] = "memory"

    def __init__(self, *, alias: str = "") -> None:
        super().__init__()
        self.alias = alias
        self._records: dict[str, TaskRecord] = {}
        self._rows: dict[tuple[str, str], Any] = {}
        self._locks: dict[tuple[str, str], _Transaction] = {}
        self._lock = threading.RLock()
        self.wait: Callable[[], object] = partial(time.sleep, 0.002)
        """Called while another transaction has locked a row: a scheduler of simulated threads lets the others run."""
        self._open: ContextVar[tuple[_Transaction, ...]] = ContextVar("open_transactions", default=())

    @property
    def records(self) -> dict[str, TaskRecord]:
        """A copy of what is committed, by id."""
        with self._lock:
            return dict(self._records)

    def _view(self) -> dict[str, TaskRecord]:
        """Return what this caller sees: the committed records under its own writes."""
        seen: dict[str, TaskRecord | None] = dict(self._records)
        for transaction in self._open.get():
            seen.update(transaction.writes)
            seen.update(dict.fromkeys(transaction.forgets))
        return {key: record for key, record in seen.items() if record is not None}

    def _do(self, work: _Transaction) -> None:
        """Leave work to the innermost open transaction, or do it now."""
        transactions = self._open.get()
        if transactions:
            transactions[-1].absorb(work)
            return
        for key in work.forgets:
            if key in self._records and self._records[key].state is State.PENDING:
                del self._records[key]
        for key, record in work.writes.items():
            if record is None:
                self._records.pop(key, None)
            else:
                self._records[key] = record
        for place, value in work.rows.items():
            if value is None:
                self._rows.pop(place, None)
            else:
                self._rows[place] = value

    # --- tables of others, in the same transactions -------------------------------------------------------------------

    def rows(self, table: str) -> dict[str, Any]:
        """Return what this caller sees of a table that another package keeps here, by key."""
        with self._lock:
            seen = dict(self._rows)
            for transaction in self._open.get():
                seen.update(transaction.rows)
        return {key: value for (of, key), value in seen.items() if of == table and value is not None}

    def write_rows(self, table: str, values: Mapping[str, Any]) -> None:
        """Write rows of such a table, None to delete one, in the surrounding transaction."""
        with self._lock:
            self._do(_Transaction(rows={(table, key): value for key, value in values.items()}))

    def lock_row(self, table: str, key: str) -> None:
        """Lock a row until the surrounding transaction ends, as an UPDATE does, once no other transaction has locked
        it. Outside a transaction only wait. Raises TimeoutError if the lock is not released."""
        transactions, waits = self._open.get(), 0
        while True:
            with self._lock:
                owner = self._locks.get((table, key))
                if owner is None or (transactions and owner is transactions[0]):
                    if transactions:
                        self._locks[(table, key)] = transactions[0]
                    return
            waits += 1
            if waits > LOCK_TRIES:
                raise TimeoutError(f"The row {key!r} of {table} is still locked by another transaction: a deadlock?")
            self.wait()

    def _unlock(self, outermost: _Transaction) -> None:
        with self._lock:
            for place in [place for place, owner in self._locks.items() if owner is outermost]:
                del self._locks[place]

    # --- records ------------------------------------------------------------------------------------------------------

    def put(self, records: Sequence[TaskRecord], forget: Sequence[str] = ()) -> None:
        with self._lock:
            seen = self._view()
            pending = dict.fromkeys(key for key in forget if key in seen and seen[key].state is State.PENDING)
            self._do(_Transaction(writes={record.id: record for record in records}, forgets=pending))

    def get(self, record_id: str) -> TaskRecord | None:
        with self._lock:
            return self._view().get(record_id)

    def delete(self, record_ids: Sequence[str], *, lease: str | None = None) -> int:
        with self._lock:
            seen = self._view()
            gone = [key for key in record_ids if key in seen and (lease is None or seen[key].lease == lease)]
            self._do(_Transaction(writes=dict.fromkeys(gone)))
            return len(gone)

    def lease_due(self, *, now: float, limit: int, seconds: float, state: State = State.PENDING) -> list[TaskRecord]:
        with self._lock:
            due = [record for record in self._view().values() if record.state == state and record.due <= now]
            due.sort(key=lambda record: (record.due, record.id))
            leased = [replace(record, lease=new_id(), due=now + seconds) for record in due[:limit]]
            self._do(_Transaction(writes={record.id: record for record in leased}))
            return leased

    def mark(self, record_id: str, *, lease: str, new_lease: str = "", **changes: Any) -> bool:
        with self._lock:
            record = self._view().get(record_id)
            if record is None or record.lease != lease:
                return False
            self._do(_Transaction(writes={record_id: replace(record, lease=new_lease, **changes)}))
            return True

    def list(self, state: State, *, limit: int = 100, after: str = "") -> list[TaskRecord]:
        with self._lock:
            found = [record for record in self._view().values() if record.state == state and record.id > after]
        return sorted(found, key=lambda record: record.id)[:limit]

    def count(self, state: State, *, due: float | None = None) -> int:
        with self._lock:
            found = [record for record in self._view().values() if record.state == state]
        return len(found) if due is None else sum(record.due <= due for record in found)

    def count_unverified(self) -> int:
        with self._lock:
            return sum(record.state is State.DEAD and not record.verified for record in self._view().values())

    def count_dead(self, since: float) -> int:
        with self._lock:
            dead = [record for record in self._view().values() if record.state is State.DEAD]
        return sum((record.last_attempt or 0.0) >= since for record in dead)

    def expire(self, before: float, *, limit: int) -> int:
        with self._lock:
            dead = [record for record in self._view().values() if record.state is State.DEAD]
            gone = [each.id for each in dead if (each.last_attempt or each.created) < before][:limit]
            self._do(_Transaction(writes=dict.fromkeys(gone)))
            return len(gone)

    def oldest_pending(self) -> float | None:
        with self._lock:
            return min((r.created for r in self._view().values() if r.state is State.PENDING), default=None)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        transaction = _Transaction()
        token = self._open.set((*self._open.get(), transaction))
        try:
            yield
        except BaseException:
            self._open.reset(token)
            if not self._open.get():
                self._unlock(transaction)
            raise
        self._open.reset(token)
        with self._lock:
            self._do(transaction)
        if not self._open.get():
            self._unlock(transaction)
            for hook in transaction.hooks:
                hook()

    def in_transaction(self) -> bool:
        return bool(self._open.get())

    def on_commit(self, func: Callable[[], object]) -> None:
        transactions = self._open.get()
        if transactions:
            transactions[-1].hooks.append(func)
        else:
            func()
