"""A store in this process's memory, for tests and simulations; with transactions that are READ COMMITTED."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

from ..record import State, TaskRecord, new_id
from .base import TaskStore


class _Transaction:
    """What one open transaction has written: records by id, None for a deleted one; and what is to follow its commit."""

    def __init__(self) -> None:
        self.writes: dict[str, TaskRecord | None] = {}
        self.hooks: list[Callable[[], object]] = []


class MemoryStore(TaskStore):
    """Keeps records in a dict."""

    name: ClassVar[str] = "memory"

    def __init__(self, *, alias: str = "") -> None:
        super().__init__()
        self.alias = alias
        self._records: dict[str, TaskRecord] = {}
        self._lock = threading.RLock()
        self._local = threading.local()

    @property
    def records(self) -> dict[str, TaskRecord]:
        """A copy of what is committed, by id."""
        with self._lock:
            return dict(self._records)

    def _stack(self) -> list[_Transaction]:
        if not hasattr(self._local, "stack"):
            self._local.stack = []
        return self._local.stack  # type: ignore[no-any-return]

    def _view(self) -> dict[str, TaskRecord]:
        """What this caller sees: the committed records under its own writes."""
        seen: dict[str, TaskRecord | None] = dict(self._records)
        for transaction in self._stack():
            seen.update(transaction.writes)
        return {key: record for key, record in seen.items() if record is not None}

    def _write(self, writes: dict[str, TaskRecord | None]) -> None:
        stack = self._stack()
        if stack:
            stack[-1].writes.update(writes)
            return
        for key, record in writes.items():
            if record is None:
                self._records.pop(key, None)
            else:
                self._records[key] = record

    def put(self, records: Sequence[TaskRecord], forget: Sequence[str] = ()) -> None:
        with self._lock:
            seen = self._view()
            gone = {key: None for key in forget if key in seen and seen[key].state is State.PENDING}
            self._write({**gone, **{record.id: record for record in records}})

    def get(self, record_id: str) -> TaskRecord | None:
        with self._lock:
            return self._view().get(record_id)

    def delete(self, record_ids: Sequence[str], *, lease: str | None = None) -> int:
        with self._lock:
            seen = self._view()
            gone = [key for key in record_ids if key in seen and (lease is None or seen[key].lease == lease)]
            self._write(dict.fromkeys(gone))
            return len(gone)

    def lease_due(self, *, now: float, limit: int, seconds: float) -> list[TaskRecord]:
        with self._lock:
            due = [record for record in self._view().values() if record.state is State.PENDING and record.due <= now]
            due.sort(key=lambda record: (record.due, record.id))
            leased = [replace(record, lease=new_id(), due=now + seconds) for record in due[:limit]]
            self._write({record.id: record for record in leased})
            return leased

    def mark(self, record_id: str, *, lease: str, new_lease: str = "", **changes: Any) -> bool:
        with self._lock:
            record = self._view().get(record_id)
            if record is None or record.lease != lease:
                return False
            self._write({record_id: replace(record, lease=new_lease, **changes)})
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
        stack = self._stack()
        transaction = _Transaction()
        stack.append(transaction)
        try:
            yield
        except BaseException:
            stack.remove(transaction)
            raise
        stack.remove(transaction)
        with self._lock:
            self._write(transaction.writes)
        if stack:
            stack[-1].hooks.extend(transaction.hooks)
        else:
            for hook in transaction.hooks:
                hook()

    def in_transaction(self) -> bool:
        return bool(self._stack())

    def on_commit(self, func: Callable[[], object]) -> None:
        stack = self._stack()
        if stack:
            stack[-1].hooks.append(func)
        else:
            func()
