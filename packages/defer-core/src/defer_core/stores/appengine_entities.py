"""What a record is in the bundled Datastore.

A record is one entity group, and its pending entity is of a kind of its own, so that a delete by key touches pending
records only, and the queue of those that are due needs no composite index:

    DeferTask, id                        a pending record, and the root of the group
    DeferTask, id / DeferKept, 1         a sent or a dead one
    DeferTask, id / DeferPart, 1…n       a payload that is too large to be a property of its record
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from .. import bundled
from ..record import State, TaskRecord
from ..task import Routing

ROOT, KEPT, PART = "DeferTask", "DeferKept", "DeferPart"
INLINE = 900_000
"""Bytes of payload in a record's own entity, which may have 1,048,572 in all."""
PIECE = 1_000_000
"""Bytes of payload in each child entity."""
BATCH, BATCH_BYTES = 400, 3_000_000
"""Records' entities that are written in one call, and their bytes."""
MAX_ERROR = 30_000
"""Characters of a traceback that are kept; its end says most."""
INDEXED = {True: {"due", "created"}, False: {"state"}}
"""What queries look for, in pending records and in others."""
_FIELDS = [each.name for each in fields(TaskRecord) if each.name != "id"]


def key_of(record_id: str, namespace: str, *, pending: bool = True) -> Any:
    """Where a record is. Raises ConfigError where the Datastore is out of reach."""
    from google.appengine.api import datastore_types

    bundled.check_reachable(bundled.DATASTORE)
    child = () if pending else (KEPT, 1)
    return datastore_types.Key.from_path(ROOT, record_id, *child, namespace=namespace)


def part_key(record_id: str, number: int, namespace: str) -> Any:
    """Where a piece of a payload is; the first is 1."""
    from google.appengine.api import datastore_types

    return datastore_types.Key.from_path(ROOT, record_id, PART, number, namespace=namespace)


def id_of(key: Any) -> str:
    """The id of the record that a key belongs to."""
    return str(key.to_path()[1])


def entity_of(record: TaskRecord, namespace: str, *, parts: int) -> Any:
    """The entity of a record, whose payload is in `parts` pieces beside it, or in it if there are none."""
    from google.appengine.api import datastore_types

    values: dict[str, Any] = {name: getattr(record, name) for name in _FIELDS}
    values |= {
        "envelope": datastore_types.Blob(record.envelope),
        "payload": None if record.payload is None or parts else datastore_types.Blob(record.payload),
        "parts": parts,
        "routing": datastore_types.Text(record.routing.to_json()),
        "state": str(record.state),
        "last_error": datastore_types.Text(_text(record.last_error)),
        "label": datastore_types.Text(_text(record.label)),
    }
    pending = record.state is State.PENDING
    return _entity(key_of(record.id, namespace, pending=pending), values, INDEXED[pending])


def pieces_of(record: TaskRecord, namespace: str) -> list[Any]:
    """The entities of a payload that is too large for its record's."""
    from google.appengine.api import datastore_types

    payload = record.payload or b""
    if len(payload) <= INLINE:
        return []
    blobs = [datastore_types.Blob(payload[start : start + PIECE]) for start in range(0, len(payload), PIECE)]
    return [
        _entity(part_key(record.id, number, namespace), {"data": blob}, set()) for number, blob in enumerate(blobs, 1)
    ]


def record_of(entity: Any, payload: bytes | None) -> TaskRecord:
    """The record of an entity, with the payload that was read with it."""
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
    """The record of an entity; of a payload in pieces only b""."""
    payload = b"" if found["parts"] else found["payload"]
    return record_of(found, None if payload is None else bytes(payload))


def batches(written: Sequence[Any]) -> list[list[Any]]:
    """Records' entities in pieces that one call takes."""
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


def _text(text: str) -> str:
    """The end of a text, without lone surrogates, which are no UTF-8."""
    return text[-MAX_ERROR:].encode("utf-8", "backslashreplace").decode()
