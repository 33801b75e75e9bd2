"""Task records as entities of a Datastore that Django sees as a database (`gcloudc`).

There an UPDATE or DELETE reads what it changes in the caller's transaction; without one its conditions may no longer
hold when it writes. So each change is a transaction here, retried after a conflict with another. A payload that is too
large for one entity continues in further rows, of the state `part`.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, ClassVar, TypeVar

from django.db import OperationalError, connections

from defer_core.spi import State, TaskRecord, new_id, read_records, shortened

from .models import DeferredTask, to_columns
from .store import DjangoTaskStore

log = logging.getLogger("defer")

PART = 900_000
"""Bytes of payload in one row: an entity has 1,048,572, also for the envelope and the last error."""
MAX_PARTS = DjangoTaskStore.max_payload // PART + 1
ROWS_AT_ONCE = 4
"""Rows read at a time: the library takes answers of 4 MiB."""
BATCH, BATCH_BYTES = 400, 3_500_000
"""Rows, and bytes of them, that one transaction of several records writes: the Datastore takes 500 and 10 MiB."""
TRIES = 8
"""How often a transaction is tried."""
MAX_PAUSE = 3.0
"""Seconds between two tries, at most."""

Result = TypeVar("Result")
Records = list[TaskRecord]  # the method `list` hides the type in its class


class DatastoreTaskStore(DjangoTaskStore):
    """Keeps records in the kind of DeferredTask, on one alias of a Datastore."""

    name: ClassVar[str] = "django"
    for_datastore: ClassVar[bool] = True

    def has_table(self) -> bool:
        """Return True: a kind need not be made."""
        return True

    def put(self, records: Sequence[TaskRecord], forget: Sequence[str] = ()) -> None:
        """Write in several transactions if one is not enough and the caller has none open; `forget` goes with the last.
        If one fails, delete what those before it wrote."""
        *first, last = _commits([list(_rows_of(record)) for record in records])
        if len(last) == 1 and not first and not forget:
            self._repeat(partial(self._write, last), alone=True)
            return
        try:
            for rows in first:
                self._repeat(partial(self._put, rows, ()))
            self._repeat(partial(self._put, last, forget))
        except Exception:
            if first and not self.in_transaction():
                self._take_back(records)
            raise

    def _take_back(self, records: Sequence[TaskRecord]) -> None:
        try:
            self.delete([record.id for record in records])
        except Exception:
            log.exception(
                "Some of %d records were written and could not be deleted: the sweep will send them.", len(records)
            )

    def _put(self, rows: list[DeferredTask], forget: Sequence[str]) -> None:
        self._write(rows)
        if forget:
            self._delete(lambda row: row.state == State.PENDING, forget)

    def _write(self, rows: Sequence[DeferredTask]) -> None:
        """Write in one call. An INSERT would first look for each row twice, but the id of a new record is unique."""
        from gcloudc.db.backends.common.helpers import django_instance_to_entities

        wrapper, columns = connections[self.alias], DeferredTask._meta.concrete_fields
        wrapper.ensure_connection()
        wrapper.validate_no_broken_transaction()
        with wrapper.wrap_database_errors:
            entities = [django_instance_to_entities(wrapper, columns, True, row)[0] for row in rows]
            wrapper.connection._put(None, entities)

    def get(self, record_id: str) -> TaskRecord | None:
        return self._repeat(lambda: self._get(record_id))

    def _get(self, record_id: str) -> TaskRecord | None:
        row = self._row(record_id)
        if row is None:
            return None
        pieces = [row.payload, *(part.payload for part in self.read(_part_ids(row)))]
        return row.to_record() if len(pieces) == 1 else row.to_record(payload=b"".join(map(bytes, pieces)))

    def delete(self, record_ids: Sequence[str], *, lease: str | None = None) -> int:
        return self._repeat(lambda: self._delete(lambda row: lease is None or row.lease == lease, record_ids))

    def _delete(self, wanted: Callable[[DeferredTask], bool], record_ids: Sequence[str]) -> int:
        """Delete by key what is wanted; a DELETE would first read each row again."""
        from gcloudc.db.backends.common.helpers import get_document_key

        gone = [[row.pk, *_part_ids(row)] for row in self.read(list(record_ids)) if wanted(row)]
        wrapper = connections[self.alias]
        for pk in [pk for pks in gone for pk in pks]:
            wrapper.connection.delete(get_document_key(wrapper, DeferredTask, pk))
        return len(gone)

    def lease_due(self, *, now: float, limit: int, seconds: float, state: State = State.PENDING) -> Records:
        due = self._rows.filter(state=str(state), due__lte=now).order_by("due", "pk")

        def lease_some() -> Records:
            while ids := [pk for pk, _ in due.values_list("pk", "due")[:limit]]:  # a query of the index alone
                if records := self._lease_free(ids, now, seconds, state):
                    return records
                # other processes took them all, and they are no longer due: choose again
            return []

        return self._repeat(lease_some, alone=True)

    def _lease_free(self, ids: Sequence[str], now: float, seconds: float, state: State) -> Records:
        """Lease the records that nobody else holds, in a random order, or callers would wait for each other at each.
        Raises OperationalError if others held them all: they may yet fail to lease them."""
        taken: dict[str, DeferredTask | None] = {}
        conflict: OperationalError | None = None
        for each in random.sample(ids, len(ids)):
            try:
                with self._atomic():
                    row = self._lease_one(each, now, seconds, state)
                taken[each] = row  # once that is committed
            except OperationalError as error:
                conflict = error
        records = read_records([row for each in ids if (row := taken.get(each))], DeferredTask.to_record)
        if conflict is not None and not records:
            raise conflict
        return records

    def _lease_one(self, record_id: str, now: float, seconds: float, state: State) -> DeferredTask | None:
        row = self._row(record_id)
        if row is None or row.state != state or row.due > now:
            return None
        row.lease, row.due = new_id(), now + seconds
        self._rows.filter(pk=row.pk).update(lease=row.lease, due=row.due)
        return row

    def expire(self, before: float, *, limit: int) -> int:
        """Find keys in the index, and check each row again in the transaction that deletes it."""
        dead = self._rows.filter(state=State.DEAD.value)
        old = dead.filter(last_attempt__gt=0.0, last_attempt__lt=before).order_by("last_attempt")
        ids = [pk for pk, _ in old.values_list("pk", "last_attempt")[:limit]]
        never = dead.filter(last_attempt=None)
        ids += [pk for pk, created in never.values_list("pk", "created")[: limit - len(ids)] if created < before]
        return self._repeat(lambda: self._delete(lambda row: _is_expired(row, before), ids)) if ids else 0

    def mark(self, record_id: str, *, lease: str, new_lease: str = "", **changes: Any) -> bool:
        columns = to_columns(changes)
        if "last_error" in columns:
            columns["last_error"] = shortened(columns["last_error"])
        return self._repeat(lambda: self._mark(record_id, lease, {**columns, "lease": new_lease}))

    def _mark(self, record_id: str, lease: str, columns: dict[str, Any]) -> bool:
        row = self._row(record_id)
        if row is None or row.lease != lease:
            return False
        payload = columns.get("payload")
        if payload is not None and len(payload) > PART:
            columns["payload"] = payload[:PART]
            self._write(list(_parts(record_id, payload)))
        self._rows.filter(pk=record_id).update(**columns)
        return True

    def list(self, state: State, *, limit: int = 100, after: str = "") -> Records:
        """List records a few at a time: here a query cannot leave out columns of bytes."""
        found: Records = []
        while room := min(limit - len(found), ROWS_AT_ONCE):
            rows = list(self._rows.filter(state=str(state), pk__gt=after).order_by("pk")[:room])
            found += read_records(rows, partial(DeferredTask.to_record, payload=None))
            if len(rows) < room:
                break
            after = rows[-1].pk
        return found

    def read(self, ids: Sequence[str]) -> Iterator[DeferredTask]:
        """Read the rows that exist, in the order of the ids."""
        for start in range(0, len(ids), ROWS_AT_ONCE):
            some = ids[start : start + ROWS_AT_ONCE]
            rows = self._rows.in_bulk(some)
            yield from (rows[each] for each in some if each in rows)

    def _row(self, record_id: str) -> DeferredTask | None:
        return self._rows.filter(pk=record_id).first()

    def _repeat(self, work: Callable[[], Result], *, alone: bool = False) -> Result:
        """Do `work` in a transaction: the caller's, or one that is retried after a conflict. What is a single call, or
        begins its own (`alone`), needs none."""
        if connections[self.alias].in_atomic_block:
            return work()

        def whole() -> Result:
            with nullcontext() if alone else self._atomic():
                return work()

        return begun_again(whole)


def _is_expired(row: DeferredTask, before: float) -> bool:
    return row.state == State.DEAD and (row.last_attempt or row.created) < before


def begun_again(work: Callable[[], Result]) -> Result:
    """Do `work`, a whole transaction, up to TRIES times after conflicts. Raises OperationalError.

    Transactions that wait for each other all fail at the same moment, when the wait ends. So the pause is a random part
    of the time that was waited: pauses that are short beside it would let them meet again."""
    for tries in range(1, TRIES):
        began = time.monotonic()
        try:
            return work()
        except OperationalError:
            waited = min(time.monotonic() - began, MAX_PAUSE)
            time.sleep(random.uniform(0.0, max(0.02 * 2**tries, waited)))
    return work()


def _rows_of(record: TaskRecord) -> Iterator[DeferredTask]:
    row = DeferredTask.from_record(record)
    row.last_error = shortened(row.last_error)
    if record.payload is not None and len(record.payload) > PART:
        row.payload = record.payload[:PART]
        yield from _parts(record.id, record.payload)
    yield row


def _commits(groups: Sequence[list[DeferredTask]]) -> Iterator[list[DeferredTask]]:
    """Group rows by transaction, those of a record together. Google's emulators take only 4 MiB: there a record may
    come after its parts, which nothing refers to until then."""
    if "DATASTORE_EMULATOR_HOST" in os.environ:
        groups = [[row] for group in groups for row in group]
    rows: list[DeferredTask] = []
    size = 0
    for group in groups:
        more = sum(map(_size, group))
        if rows and (size + more > BATCH_BYTES or len(rows) + len(group) > BATCH):
            yield rows
            rows, size = [], 0
        rows += group
        size += more
    yield rows


def _size(row: DeferredTask) -> int:
    """Estimate the bytes of a row on the wire."""
    return 2000 + len(row.envelope) + len(row.payload or b"") + 4 * (len(row.routing) + len(row.last_error))


def _parts(record_id: str, payload: bytes) -> Iterator[DeferredTask]:
    """Make the rows of what does not fit into the record's own; the last is shorter than PART, perhaps empty."""
    for number in range(1, len(payload) // PART + 1):
        part = payload[number * PART : (number + 1) * PART]
        record = TaskRecord(id=_part_id(record_id, number), envelope=b"", payload=part)
        row = DeferredTask.from_record(record)
        row.state = "part"
        yield row


def _part_ids(row: DeferredTask) -> list[str]:
    """Return the ids of possible further parts: a row that is not full is the last."""
    return [_part_id(row.pk, number) for number in range(1, MAX_PARTS + 1)] if len(row.payload or b"") == PART else []


def _part_id(record_id: str, number: int) -> str:
    return f"{record_id}-{number:02}"
