"""The seam behind which tasks are stored."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Self, TypeVar

from ..record import State, TaskRecord

log = logging.getLogger("defer")

Row = TypeVar("Row")
MAX_PAYLOAD = 9 * 1024 * 1024
"""Bytes of payload that every store takes: under Datastore's 10 MiB for a request, with room for the rest."""


class TaskStore(ABC):
    """Keeps TaskRecords, in the caller's transaction if there is one."""

    name: ClassVar[str]
    """The name of this kind of store in a claim check."""
    alias: str = ""
    """Which store of its kind (a database alias, an NDB namespace); empty if there is only one."""
    supports_transactional_outside: ClassVar[bool] = False
    """True if `_transactional=True` outside a transaction sends at once (Django) instead of being an error."""
    supports_records_beside_transaction: ClassVar[bool] = False
    """True if `_transactional=False` inside a transaction can still write its record, outside it."""
    max_payload: ClassVar[int] = MAX_PAYLOAD
    """Bytes of payload that one record may have."""

    def __init__(self) -> None:
        self.forgotten = ForgetList()

    def has_alias(self, alias: str) -> bool:
        """Return True if there is a store of this kind on `alias`."""
        return alias == self.alias

    def using(self, alias: str | None) -> Self:
        """Return the store of this kind on another alias; None is the default one."""
        return self

    def everywhere(self) -> Sequence[Self]:
        """Return the stores of this kind on every alias that has records, this one first: the sweep and people look
        through them all."""
        return (self,)

    def outside_transaction(self) -> AbstractContextManager[Any]:
        """Suspend the surrounding transaction in a `with` block (needs `supports_records_beside_transaction`)."""
        raise NotImplementedError(f"The {self.name} store cannot write outside the caller's transaction.")

    def briefly(self) -> AbstractContextManager[Any]:
        """Return a `with` block for a thread that serves no requests: at its end, a connection that was opened in it is
        closed."""
        return nullcontext()

    @abstractmethod
    def put(self, records: Sequence[TaskRecord], forget: Sequence[str] = ()) -> None:
        """Write new records, and in the same transaction delete those `forget` ids whose record is still pending."""

    @abstractmethod
    def get(self, record_id: str) -> TaskRecord | None:
        """Return one record with its payload, else None."""

    @abstractmethod
    def delete(self, record_ids: Sequence[str], *, lease: str | None = None) -> int:
        """Delete records; with `lease`, only those that still have that token. Returns how many there were."""

    @abstractmethod
    def lease_due(self, *, now: float, limit: int, seconds: float, state: State = State.PENDING) -> list[TaskRecord]:
        """Lease up to `limit` records in `state` with `due <= now`, oldest first, each under a fresh token, for
        `seconds` (their `due` moves to `now + seconds`). Two callers never get the same record at a time, and an empty
        list means that nothing is due. A record that cannot be read is logged and left out."""

    @abstractmethod
    def mark(self, record_id: str, *, lease: str, new_lease: str = "", **changes: Any) -> bool:
        """Change fields of a record that still has `lease`, which `new_lease` replaces. Never creates a record. Returns
        whether it changed one."""

    @abstractmethod
    def list(self, state: State, *, limit: int = 100, after: str = "") -> list[TaskRecord]:
        """Return the records in `state` (its name will do) by id, those beyond `after`; the payload may be left out."""

    @abstractmethod
    def count(self, state: State, *, due: float | None = None) -> int:
        """Count the records in `state` (its name will do); with `due`, only those with `due` at that time or before.
        None of them is read."""

    @abstractmethod
    def count_unverified(self) -> int:
        """Count the dead letters of bodies that never verified. None of them is read."""

    def count_dead(self, since: float) -> int:
        """Count the dead letters that were last attempted at that time or later (seconds since the epoch). By default
        they are read; the stores here read none."""
        count, after = 0, ""
        while page := self.list(State.DEAD, after=after):
            count += sum((each.last_attempt or 0.0) >= since for each in page)
            after = page[-1].id
        return count

    @abstractmethod
    def expire(self, before: float, *, limit: int) -> int:
        """Delete up to `limit` dead letters whose last attempt (or creation, without one) was before that time, in
        seconds since the epoch. Those that stay are not read. Returns how many were deleted."""

    @abstractmethod
    def oldest_pending(self) -> float | None:
        """Return the creation time of the oldest pending record, else None."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[Any]:
        """Open a transaction (or, inside one, a nested one) for a `with` block."""

    @abstractmethod
    def in_transaction(self) -> bool:
        """Return True if the caller is in a transaction of this store. Raises ConfigError if that cannot be known."""

    @abstractmethod
    def on_commit(self, func: Callable[[], object]) -> None:
        """Call `func` after the surrounding transaction has committed, and not at all if it rolls back; outside one,
        call it at once. `func` must not raise."""

    def on_commit_or_raise(self, func: Callable[[], object]) -> None:
        """Call `func` like `on_commit`; it may raise, and the caller that commits gets its exception, if the store can
        pass it on."""
        self.on_commit(func)


def readable(rows: Iterable[Row], to_record: Callable[[Row], TaskRecord]) -> list[TaskRecord]:
    """Return the records of rows. A row that cannot be read (another release's, or one edited by hand) does not hold up
    the others."""
    records = []
    for row in rows:
        try:
            records.append(to_record(row))
        except Exception:
            log.exception("A task record cannot be read, and is left out.")
    return records


class ForgetList:
    """Ids of records that were sent inline and may be deleted with a later put of this process, or with its next
    sweep."""

    LIMIT = 100

    def __init__(self, least: int = 1) -> None:
        """Wait until `least` ids are listed, for stores where deletes cost a put further statements."""
        self._least = least
        self._ids: dict[str, None] = {}
        self._lock = threading.Lock()

    def add(self, record_id: str) -> None:
        """Note that a record may be deleted."""
        with self._lock:
            self._ids[record_id] = None

    def peek(self) -> tuple[str, ...]:
        """Return up to LIMIT ids. They stay listed until `drop`, because the transaction that deletes them may roll
        back."""
        with self._lock:
            return tuple(self._ids)[: self.LIMIT]

    def riding(self) -> tuple[str, ...]:
        """Return the ids that the next put deletes."""
        return self.peek() if len(self._ids) >= self._least else ()

    def drop(self, record_ids: Sequence[str]) -> None:
        """Take ids off the list, once the transaction that deletes them has committed."""
        with self._lock:
            for record_id in record_ids:
                self._ids.pop(record_id, None)
