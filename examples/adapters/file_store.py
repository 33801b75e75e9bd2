"""A store in one file, for a service of one process: every commit writes the file anew."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from defer_core.spi import State, TaskRecord, TaskStore, new_id


class FileStore(TaskStore):
    name = "file"

    def __init__(self, *, file: str | Path) -> None:
        super().__init__()
        self._file, self._lock, self._thread = Path(file), threading.RLock(), threading.local()
        self._records: dict[str, TaskRecord] = {}
        if self._file.exists():
            self._records = pickle.loads(self._file.read_bytes())

    # --- transactions: one at a time, and what is in it is seen once it has committed -------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._lock:
            outer, before, hooks = self._hooks(), self._records.copy(), []
            self._thread.hooks = hooks
            try:
                yield
                if outer is None:
                    self._commit()
            except BaseException:
                self._records = before
                raise
            finally:
                self._thread.hooks = outer
        for hook in hooks:
            self.on_commit(hook)  # of the outer transaction, if there is one

    def in_transaction(self) -> bool:
        return self._hooks() is not None

    def on_commit(self, func: Callable[[], object]) -> None:
        hooks = self._hooks()
        func() if hooks is None else hooks.append(func)

    def _hooks(self) -> list[Callable[[], object]] | None:
        return getattr(self._thread, "hooks", None)

    def _commit(self) -> None:
        written = self._file.with_suffix(".new")
        written.write_bytes(pickle.dumps(self._records))
        os.replace(written, self._file)

    # --- records ----------------------------------------------------------------------------------

    def put(self, records: Sequence[TaskRecord], forget: Sequence[str] = ()) -> None:
        with self.transaction():
            for record in filter(None, map(self.get, forget)):
                if record.state is State.PENDING:
                    del self._records[record.id]
            self._records.update((record.id, record) for record in records)

    def get(self, record_id: str) -> TaskRecord | None:
        with self._lock:
            return self._records.get(record_id)

    def delete(self, record_ids: Sequence[str], *, lease: str | None = None) -> int:
        with self.transaction():
            found = [record for record in map(self.get, record_ids) if record and lease in (None, record.lease)]
            for record in found:
                del self._records[record.id]
            return len(found)

    def lease_due(self, *, now: float, limit: int, seconds: float, state: State = State.PENDING) -> list[TaskRecord]:
        with self.transaction():
            due = sorted((record for record in self._in(state) if record.due <= now), key=lambda each: each.due)
            leased = [replace(record, lease=new_id(), due=now + seconds) for record in due[:limit]]
            self.put(leased)
            return leased

    def mark(self, record_id: str, *, lease: str, new_lease: str = "", **changes: Any) -> bool:
        with self.transaction():
            record = self.get(record_id)
            if record is None or record.lease != lease:
                return False
            self.put([replace(record, lease=new_lease, **changes)])
            return True

    def list(self, state: State, *, limit: int = 100, after: str = "") -> list[TaskRecord]:
        return sorted((each for each in self._in(state) if each.id > after), key=lambda each: each.id)[:limit]

    def count(self, state: State, *, due: float | None = None) -> int:
        return sum(due is None or record.due <= due for record in self._in(state))

    def count_unverified(self) -> int:
        return sum(not record.verified for record in self._in(State.DEAD))

    def expire(self, before: float, *, limit: int) -> int:
        old = [each.id for each in self._in(State.DEAD) if (each.last_attempt or each.created) < before]
        return self.delete(old[:limit])

    def oldest_pending(self) -> float | None:
        return min((record.created for record in self._in(State.PENDING)), default=None)

    def _in(self, state: State) -> Sequence[TaskRecord]:
        with self._lock:
            return [record for record in self._records.values() if record.state == state]
