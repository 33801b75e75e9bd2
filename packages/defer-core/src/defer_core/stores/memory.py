"""A store in this process's memory, for tests and simulations; with transactions that are READ COMMITTED."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from ..record import State, TaskRecord, new_id
from .base import TaskStore


@dataclass
class _Transaction:
    """What one open transaction is to do when it commits."""

    writes: dict[str, TaskRecord | None] = field(default_factory=dict)
    """Records by id, None for a deleted one."""
    forgets: dict[str, None] = field(default_factory=dict)
    """Ids to delete if their record is pending at the commit (a database would have locked the row until then)."""
    hooks: list[Callable[[], object]] = field(default_factory=list)
    """What is to be called after the commit."""

    def absorb(self, inner: _Transaction) -> None:
        """Take over what a nested transaction has done."""
        self.writes.update(inner.writes)
        self.forgets.update(inner.forgets)
        self.hooks.extend(inner.hooks)


class MemoryStore(TaskStore):
    """Keeps records in a dict."""

    name: ClassVar[str] = "memory"

    def __init__(self, *, alias: str = "") -> None:
        super().__init__()
        self.alias = alias
        self._records: dict[str, TaskRecord] = {}
        self._lock = threading.RLock()
        self._open: ContextVar[tuple[_Transaction, ...]] = ContextVar("open_transactions", default=())

    @property
    def records(self) -> dict[str, TaskRecord]:
        """A copy of what is committed, by id."""
        with self._lock:
            return dict(self._records)

    def _view(self) -> dict[str, TaskRecord]:
        """What this caller sees: the committed records under its own writes."""
        seen: dict[str, TaskRecord | None] = dict(self._records)
        for transaction in self._open.get():
            seen.update(transaction.writes)
            seen.update(dict.fromkeys(transaction.forgets))
        return {key: record for key, record in seen.items() if record is not None}

    def _do(self, work: _Transaction) -> None:
        """Leave work to the innermost open transaction, or do it now."""
        opened = self._open.get()
        if opened:
            opened[-1].absorb(work)
            return
        for key in work.forgets:
            if key in self._records and self._records[key].state is State.PENDING:
                del self._records[key]
        for key, record in work.writes.items():
            if record is None:
                self._records.pop(key, None)
            else:
                self._records[key] = record

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

    def lease_due(self, *, now: float, limit: int, seconds: float) -> list[TaskRecord]:
        with self._lock:
            due = [record for record in self._view().values() if record.state is State.PENDING and record.due <= now]
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
            found = [record for record in self._view().values() if record.state is state and record.id > after]
        return sorted(found, key=lambda record: record.id)[:limit]

    def count(self, state: State) -> int:
        with self._lock:
            return sum(record.state is state for record in self._view().values())

    def oldest_pending(self) -> float | None:
        with self._lock:
            return min((r.created for r in self._view().values() if r.state is State.PENDING), default=None)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        transaction = _Transaction()
        token = self._open.set((*self._open.get(), transaction))
        try:
            yield
        finally:
            self._open.reset(token)
        with self._lock:
            self._do(transaction)
        if not self._open.get():
            for hook in transaction.hooks:
                hook()

    def in_transaction(self) -> bool:
        return bool(self._open.get())

    def on_commit(self, func: Callable[[], object]) -> None:
        opened = self._open.get()
        if opened:
            opened[-1].hooks.append(func)
        else:
            func()
