"""Task records as entities of a Datastore that Django sees as a database (`gcloudc`).

There, an UPDATE or DELETE reads what it changes in the transaction of the caller, and outside one in none that the
caller's conditions hold in: so each change is a transaction here, and repeated where another one was in the way. A
payload that is too large for one entity goes on in further rows, of the state `part`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

from django.db import OperationalError, connections

from defer_core.record import State, TaskRecord, new_id

from .models import DeferredTask, to_column
from .store import DjangoTaskStore, delete

PART = 900_000
"""Bytes of payload in one row: an entity has 1,048,572, also for the envelope and the last error."""
MAX_PARTS = DjangoTaskStore.max_payload // PART + 1
MAX_ERROR = 20_000
"""Characters of the last error that are kept."""
BATCH = 400
"""Rows that one transaction writes."""
TRIES = 6

Result = TypeVar("Result")


class DatastoreTaskStore(DjangoTaskStore):
    """Keeps records in the kind of DeferredTask, on one database alias."""

    name: ClassVar[str] = "django"

    def has_table(self) -> bool:
        """A kind need not be made."""
        return True

    def put(self, records: Sequence[TaskRecord], forget: Sequence[str] = ()) -> None:
        """More than one transaction takes are several, unless the caller has one open; `forget` goes with the last."""
        rows = [row for record in records for row in _rows_of(record)]
        for start in range(0, len(rows) or 1, BATCH):
            ending = start + BATCH >= len(rows)
            self._repeat(lambda: self._put(rows[start : start + BATCH], forget if ending else ()))  # noqa: B023

    def _put(self, rows: list[DeferredTask], forget: Sequence[str]) -> None:
        if rows:
            self._rows.bulk_create(rows)
        if forget:
            self._delete(lambda row: row.state == State.PENDING, forget)

    def get(self, record_id: str) -> TaskRecord | None:
        return self._repeat(lambda: self._get(record_id))

    def _get(self, record_id: str) -> TaskRecord | None:
        row = self._row(record_id)
        if row is None:
            return None
        parts = self._rows.in_bulk(_part_ids(row))
        payload = b"".join(bytes(parts[pk].payload or b"") for pk in sorted(parts))
        return row.to_record() if not parts else row.to_record(payload=bytes(row.payload or b"") + payload)

    def delete(self, record_ids: Sequence[str], *, lease: str | None = None) -> int:
        return self._repeat(lambda: self._delete(lambda row: lease is None or row.lease == lease, record_ids))

    def _delete(self, wanted: Callable[[DeferredTask], bool], record_ids: Sequence[str]) -> int:
        gone = [row for row in self._rows.in_bulk(list(record_ids)).values() if wanted(row)]
        if gone:
            delete(self._rows.filter(pk__in=[pk for row in gone for pk in (row.pk, *_part_ids(row))]))
        return len(gone)

    def lease_due(self, *, now: float, limit: int, seconds: float) -> list[TaskRecord]:
        due = self._rows.filter(state=State.PENDING.value, due__lte=now).order_by("due", "pk")
        leased = (self._repeat(lambda: self._lease(row.pk, now, seconds)) for row in list(due[:limit]))  # noqa: B023
        return [record for record in leased if record is not None]

    def _lease(self, record_id: str, now: float, seconds: float) -> TaskRecord | None:
        row = self._row(record_id)
        if row is None or row.state != State.PENDING or row.due > now:
            return None
        row.lease, row.due = new_id(), now + seconds
        self._rows.filter(pk=row.pk).update(lease=row.lease, due=row.due)
        return row.to_record()

    def mark(self, record_id: str, *, lease: str, new_lease: str = "", **changes: Any) -> bool:
        columns = {name: to_column(value) for name, value in changes.items()}
        if "last_error" in columns:
            columns["last_error"] = columns["last_error"][-MAX_ERROR:]
        return self._repeat(lambda: self._mark(record_id, lease, {**columns, "lease": new_lease}))

    def _mark(self, record_id: str, lease: str, columns: dict[str, Any]) -> bool:
        row = self._row(record_id)
        if row is None or row.lease != lease:
            return False
        payload = columns.get("payload")
        if payload is not None and len(payload) > PART:
            columns["payload"] = payload[:PART]
            self._rows.bulk_create(_parts(record_id, payload))
        self._rows.filter(pk=record_id).update(**columns)
        return True

    def list(self, state: State, *, limit: int = 100, after: str = "") -> list[TaskRecord]:
        """Columns of bytes cannot be left out of a query here."""
        rows = self._rows.filter(state=state.value, pk__gt=after).order_by("pk")[:limit]
        return [row.to_record(payload=None) for row in rows]

    def _row(self, record_id: str) -> DeferredTask | None:
        return self._rows.filter(pk=record_id).first()

    def _repeat(self, work: Callable[[], Result]) -> Result:
        """Do `work` in a transaction: the caller's, or one that is begun again when another one was in its way."""
        if connections[self.alias].in_atomic_block:
            return work()
        for tries in range(1, TRIES):
            try:
                with self._atomic():
                    return work()
            except OperationalError:
                time.sleep(random.uniform(0.5, 1.0) * 0.02 * 2**tries)
        with self._atomic():
            return work()


def _rows_of(record: TaskRecord) -> Iterator[DeferredTask]:
    row = DeferredTask.from_record(record)
    row.last_error = row.last_error[-MAX_ERROR:]
    if record.payload is not None and len(record.payload) > PART:
        row.payload = record.payload[:PART]
        yield from _parts(record.id, record.payload)
    yield row


def _parts(record_id: str, payload: bytes) -> Iterator[DeferredTask]:
    """The rows of what does not fit into the record's own; the last is shorter than the others, perhaps empty."""
    for number in range(1, len(payload) // PART + 1):
        part = payload[number * PART : (number + 1) * PART]
        record = TaskRecord(id=_part_id(record_id, number), envelope=b"", payload=part)
        row = DeferredTask.from_record(record)
        row.state = "part"
        yield row


def _part_ids(row: DeferredTask) -> list[str]:
    """Where the rest of a payload may be: a row that is not full is the last."""
    return [_part_id(row.pk, number) for number in range(1, MAX_PARTS + 1)] if len(row.payload or b"") == PART else []


def _part_id(record_id: str, number: int) -> str:
    return f"{record_id}-{number:02}"
