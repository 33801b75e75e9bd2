"""What a record is in the bundled Datastore.

A record is one entity group. Its state is its kind, so that a delete by key touches pending records only, and no query
needs a composite index:

    DeferTask, id                        a pending record, and the root of the group
    DeferTask, id / DeferSent, 1         a sent one
    DeferTask, id / DeferFailing, 1      one that has failed
    DeferTask, id / DeferDead, 1         a dead one
    DeferTask, id / DeferPart, 1…n       a payload that is too large to be a property of its record
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from ... import platform
from ...record import State, TaskRecord
from ...task import Routing
from ...text import shortened, storable

ROOT, PART = "DeferTask", "DeferPart"
KINDS = {State.PENDING: ROOT, State.SENT: "DeferSent", State.FAILING: "DeferFailing", State.DEAD: "DeferDead"}
INLINE = 900_000
"""Bytes of payload in a record's own entity, which may have 1,048,572 in all."""
PIECE = 1_000_000
"""Bytes of payload in each child entity."""
BATCH, BATCH_BYTES = 400, 3_000_000
"""Records' entities that are written in one call, and their bytes."""
INDEXED = {
    State.PENDING: {"due", "created"},
    State.SENT: {"due"},
    State.FAILING: {"due"},
    State.DEAD: {"last_attempt", "verified"},
}
"""The properties that queries use, in each state."""
_FIELDS = [each.name for each in fields(TaskRecord) if each.name != "id"]


def key_of(record_id: str, state: State, namespace: str) -> Any:
    """Return the key of a record while it is in `state`. Raises ConfigError if the Datastore is out of reach."""
    from google.appengine.api import datastore_types

    platform.require_bundled_service(platform.DATASTORE)
    child = () if state == State.PENDING else (KINDS[state], 1)
    return datastore_types.Key.from_path(ROOT, record_id, *child, namespace=namespace)


def part_key(record_id: str, number: int, namespace: str) -> Any:
    """Return the key of a piece of a payload; the first is 1."""
    from google.appengine.api import datastore_types

    return datastore_types.Key.from_path(ROOT, record_id, PART, number, namespace=namespace)


def id_of(key: Any) -> str:
    """Return the id of the record that a key belongs to."""
    return str(key.to_path()[1])


def entity_of(record: TaskRecord, namespace: str, *, parts: int) -> Any:
    """Return the entity of a record, whose payload is in `parts` pieces beside it, or in it if there are none."""
    from google.appengine.api import datastore_types

    values: dict[str, Any] = {name: getattr(record, name) for name in _FIELDS}
    values |= {
        "envelope": datastore_types.Blob(record.envelope),
        "payload": None if record.payload is None or parts else datastore_types.Blob(record.payload),
        "parts": parts,
        "routing": datastore_types.Text(record.routing.to_json()),
        "state": str(record.state),
        "last_error": datastore_types.Text(shortened(storable(record.last_error))),
        "label": datastore_types.Text(storable(record.label)),
    }
    return _entity(key_of(record.id, record.state, namespace), values, INDEXED[record.state])


def pieces_of(record: TaskRecord, namespace: str) -> list[Any]:
    """Return the entities of a payload that is too large for its record's."""
    from google.appengine.api import datastore_types

    payload = record.payload or b""
    if len(payload) <= INLINE:
        return []
    blobs = [datastore_types.Blob(payload[start : start + PIECE]) for start in range(0, len(payload), PIECE)]
    return [
        _entity(part_key(record.id, number, namespace), {"data": blob}, set()) for number, blob in enumerate(blobs, 1)
    ]


def record_of(entity: Any, payload: bytes | None) -> TaskRecord:
    """Return the record of an entity, with the payload that was read with it."""
    values = {name: entity[name] for name in _FIELDS}
    texts = {name: str(values[name]) for name in ("lease", "reason", "last_error", "label")}
    values |= {
        **texts,
        "payload": payload,
        "envelope": bytes(entity["envelope"]),
        "routing": Routing.from_json(str(entity["routing"])),
        "state": State(entity["state"]),
    }
    return TaskRecord(id=id_of(entity.key()), **values)


def whole(found: Any) -> TaskRecord:
    """Return the record of an entity; of a payload in pieces only b""."""
    payload = b"" if found["parts"] else found["payload"]
    return record_of(found, None if payload is None else bytes(payload))


def batches(written: Sequence[Any]) -> list[list[Any]]:
    """Return records' entities in lists that one call takes."""
    found: list[list[Any]] = []
    room = 0
    for entity in written:
        size = 1000 + len(entity["envelope"]) + len(entity["payload"] or b"") + 2 * len(entity["last_error"])
        if size > room or len(found[-1]) == BATCH:
            found.append([])
            room = BATCH_BYTES
        found[-1].append(entity)
        room -= size
    return found


def _entity(key: Any, values: dict[str, Any], indexed: set[str]) -> Any:
    from google.appengine.api import datastore

    last = key.to_path()[-1]
    named = {"id": last} if isinstance(last, int) else {"name": last}
    entity = datastore.Entity(
        key.kind(), parent=key.parent(), namespace=key.namespace(), unindexed_properties=set(values) - indexed, **named
    )
    entity.update(values)
    return entity
