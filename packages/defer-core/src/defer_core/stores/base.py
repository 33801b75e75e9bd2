"""The seam behind which tasks are kept."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Self

from ..record import State, TaskRecord

MAX_PAYLOAD = 9 * 1024 * 1024
"""Bytes of payload that every store takes: under Datastore's 10 MiB a request, with room for the rest."""


class TaskStore(ABC):
    """Keeps TaskRecords, if need be in the caller's transaction."""

    name: ClassVar[str]
    """What a Claim calls this kind of store."""
    alias: str = ""
    """Which one of its kind (a database alias, an NDB namespace); empty where there is only one."""
    supports_transactions: ClassVar[bool] = True
    """Whether records can be written in the caller's transaction."""
    supports_transactional_outside: ClassVar[bool] = False
    """Whether `_transactional=True` outside a transaction sends at once (Django) instead of being an error."""
    supports_records_beside_transaction: ClassVar[bool] = False
    """Whether `_transactional=False` inside a transaction can still write its record, outside it."""
    max_payload: ClassVar[int] = MAX_PAYLOAD
    """Bytes of payload that one record may have."""

    def __init__(self) -> None:
        self.forgotten = ForgetList()

    def has_alias(self, alias: str) -> bool:
        """Whether there is a store of this kind on `alias`."""
        return alias == self.alias

    def using(self, alias: str | None) -> Self:
        """The store of this kind on another alias; None is the default one."""
        return self

    def everywhere(self) -> Sequence[Self]:
        """The stores of this kind on every alias that has records, this one first:
        what the sweep and people look through."""
        return (self,)

    def outside_transaction(self) -> AbstractContextManager[Any]:
        """Leave the surrounding transaction for the length of a `with` block (needs
        `supports_records_beside_transaction`)."""
        raise NotImplementedError(f"The {self.name} store cannot write beside a transaction.")

    @abstractmethod
    def put(self, records: Sequence[TaskRecord], forget: Sequence[str] = ()) -> None:
        """Write new records, and in the same transaction delete those `forget` ids whose record is still pending."""

    @abstractmethod
    def get(self, record_id: str) -> TaskRecord | None:
        """One record with its payload, or None."""

    @abstractmethod
    def delete(self, record_ids: Sequence[str], *, lease: str | None = None) -> int:
        """Delete records; with `lease`, only those that still bear that token. Returns how many were there."""

    @abstractmethod
    def lease_due(self, *, now: float, limit: int, seconds: float) -> list[TaskRecord]:
        """Take up to `limit` pending records with `due <= now`, oldest first, each under a fresh token, for `seconds`
        (their `due` moves to `now + seconds`). Two callers never get one record at a time."""

    @abstractmethod
    def mark(self, record_id: str, *, lease: str, new_lease: str = "", **changes: Any) -> bool:
        """Change fields of a record that still bears `lease`, which `new_lease` replaces. Never creates a record.
        Returns whether it did."""

    @abstractmethod
    def list(self, state: State, *, limit: int = 100, after: str = "") -> list[TaskRecord]:
        """Records in `state` (its name will do) by id, those beyond `after`; the payload may be left out."""

    @abstractmethod
    def count(self, state: State) -> int:
        """How many records are in `state` (its name will do)."""

    @abstractmethod
    def oldest_pending(self) -> float | None:
        """The creation time of the oldest pending record, or None."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[Any]:
        """A transaction (or, inside one, a nested one) for the length of a `with` block."""

    @abstractmethod
    def in_transaction(self) -> bool:
        """Whether the caller is in a transaction of this store. Raises ConfigError where that cannot be told."""

    @abstractmethod
    def on_commit(self, func: Callable[[], object]) -> None:
        """Call `func` after the surrounding transaction has committed, and not at all if it rolls back; at once outside
        one. `func` must not raise."""


class ForgetList:
    """Ids of records that were sent inline and may go with a later put of this process, or with its next sweep."""

    LIMIT = 100

    def __init__(self, least: int = 1) -> None:
        """With `least`, that many are to go at once, where deletes cost a put further statements."""
        self._least = least
        self._ids: dict[str, None] = {}
        self._lock = threading.Lock()

    def add(self, record_id: str) -> None:
        """Note that a record may go."""
        with self._lock:
            self._ids[record_id] = None

    def peek(self) -> tuple[str, ...]:
        """Up to LIMIT ids, which stay listed until `drop`, for the transaction that carries them may roll back."""
        with self._lock:
            return tuple(self._ids)[: self.LIMIT]

    def riding(self) -> tuple[str, ...]:
        """What the next put carries."""
        return self.peek() if len(self._ids) >= self._least else ()

    def drop(self, record_ids: Sequence[str]) -> None:
        """The transaction that carried these deletes has committed."""
        with self._lock:
            for record_id in record_ids:
                self._ids.pop(record_id, None)
