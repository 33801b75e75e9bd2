"""Deliberate faults: each takes one rule away, and the simulator must notice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

from defer_core import dead, sending
from defer_core.record import TaskRecord
from defer_core.stores.memory import MemoryStore, _Transaction

Mutant = Callable[[], AbstractContextManager[Any]]


@contextmanager
def delete_before_send() -> Iterator[None]:
    """The record goes before the queue has the task."""
    send = sending.send

    def mutated(record: TaskRecord, store: Any, config: Any) -> Any:
        if not record.is_claim:
            store.delete([record.id])
        return send(record, store, config)

    with mock.patch.object(sending, "send", mutated):
        yield


@contextmanager
def sweep_without_name() -> Iterator[None]:
    """The sweep lets the queue choose a name, so nothing stops a second send."""
    send = sending.send

    def mutated(record: TaskRecord, store: Any, config: Any) -> Any:
        if record.lease:
            record = replace(record, routing=replace(record.routing, name=None))
        return send(record, store, config)

    with mock.patch.object(sending, "send", mutated):
        yield


@contextmanager
def mark_as_upsert() -> Iterator[None]:
    """`mark` makes the record that it does not find."""
    mark = MemoryStore.mark

    def mutated(self: MemoryStore, record_id: str, *, lease: str, new_lease: str = "", **changes: Any) -> bool:
        if self.get(record_id) is None:
            self.put([TaskRecord(id=record_id, envelope=b"", lease=new_lease, **changes)])
            return True
        return mark(self, record_id, lease=lease, new_lease=new_lease, **changes)

    with mock.patch.object(MemoryStore, "mark", mutated):
        yield


@contextmanager
def carried_delete_of_any_state() -> Iterator[None]:
    """A carried delete erases a dead letter, too."""

    def mutated(self: MemoryStore, records: Sequence[TaskRecord], forget: Sequence[str] = ()) -> None:
        self._do(_Transaction(writes={**dict.fromkeys(forget), **{record.id: record for record in records}}))

    with mock.patch.object(MemoryStore, "put", mutated):
        yield


@contextmanager
def rerun_under_the_old_name() -> Iterator[None]:
    """A re-run keeps its name, which the queue has seen."""
    with mock.patch.object(dead, "_routing_again", lambda record, config: replace(record.routing, eta=None)):
        yield


@contextmanager
def stale_lease_that_marks() -> Iterator[None]:
    """`mark` does not ask who holds the record."""
    mark = MemoryStore.mark

    def mutated(self: MemoryStore, record_id: str, *, lease: str, new_lease: str = "", **changes: Any) -> bool:
        record = self.get(record_id)
        return record is not None and mark(self, record_id, lease=record.lease, new_lease=new_lease, **changes)

    with mock.patch.object(MemoryStore, "mark", mutated):
        yield


OF_TASKS: dict[str, Mutant] = {
    each.__name__: each
    for each in (
        delete_before_send,
        sweep_without_name,
        mark_as_upsert,
        carried_delete_of_any_state,
        rerun_under_the_old_name,
        stale_lease_that_marks,
    )
}
