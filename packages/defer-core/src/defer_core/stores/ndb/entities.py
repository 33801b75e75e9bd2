"""What a record is in the Datastore.

A record is one entity group. Its state is its kind, so that the queue of pending records is one built-in index of a
kind of its own, and a delete by key touches pending records only:

    DeferTask, id                        a pending record, and the root of the group
    DeferTask, id / DeferSent, 1         a sent one
    DeferTask, id / DeferFailing, 1      one that has failed
    DeferTask, id / DeferDead, 1         a dead one
    DeferTask, id / DeferPayload, 1…n    a payload that is too large to be a property of its record
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from typing import Any

from ...record import State, TaskRecord
from ...task import Routing
from ...text import shortened, storable

ROOT, PAYLOAD = "DeferTask", "DeferPayload"
KINDS = {State.PENDING: ROOT, State.SENT: "DeferSent", State.FAILING: "DeferFailing", State.DEAD: "DeferDead"}
INDEXED = {
    State.PENDING: {"due", "created"},
    State.SENT: {"due"},
    State.FAILING: {"due"},
    State.DEAD: {"last_attempt", "verified"},
}
"""The properties that queries use, in each state."""
INLINE = 900_000
"""Bytes of payload in a record's own entity: the rest of its 1,048,572 is for envelope, routing and traceback."""
MAX_WRITES = 500
"""Entities that one commit may write and delete."""
MAX_CHUNK = 3_500_000
"""Bytes of many records that go in one commit: Google's emulators take 4 MiB, and the Datastore 10."""
DIRECT: dict[str, Any] = {"use_cache": False, "use_global_cache": False}
"""Options by which records bypass ndb's caches, whatever policy the caller's context has."""
PART = 1_000_000
"""Bytes of payload in each child entity."""
PIECES_AT_ONCE = 3
"""Child entities that are read at a time: a gRPC client takes answers of 4 MiB."""


@cache
def model(state: State) -> Any:
    """Return the ndb model of the records in one state."""
    from google.cloud import ndb

    indexed = INDEXED[State(state)]
    properties = {
        "envelope": ndb.BlobProperty(),
        "payload": ndb.BlobProperty(),
        "parts": ndb.IntegerProperty(indexed=False, default=0),
        "routing": ndb.TextProperty(),
        "idempotent": ndb.BooleanProperty(indexed=False),
        "verified": ndb.BooleanProperty(indexed="verified" in indexed),
        "created": ndb.FloatProperty(indexed="created" in indexed),
        "due": ndb.FloatProperty(indexed="due" in indexed),
        "attempts": ndb.IntegerProperty(indexed=False),
        "doubtful_since": ndb.FloatProperty(indexed=False),
        "lease": ndb.TextProperty(),
        "last_error": ndb.TextProperty(),
        "reason": ndb.TextProperty(),
        "first_attempt": ndb.FloatProperty(indexed=False),
        "last_attempt": ndb.FloatProperty(indexed="last_attempt" in indexed),
        "label": ndb.TextProperty(),
    }
    return type(KINDS[state], (ndb.Model,), properties)


@cache
def part_model() -> Any:
    """Return the ndb model of a piece of a payload."""
    from google.cloud import ndb

    return type(PAYLOAD, (ndb.Model,), {"data": ndb.BlobProperty()})


def key_of(record_id: str, state: State, namespace: str) -> Any:
    """Return the key of a record while it is in `state`."""
    from google.cloud import ndb

    child = () if state == State.PENDING else (KINDS[state], 1)
    return ndb.Key(ROOT, record_id, *child, namespace=namespace)


def part_keys(record_id: str, count: int, namespace: str) -> list[Any]:
    """Return the keys of the pieces of a payload."""
    from google.cloud import ndb

    return [ndb.Key(ROOT, record_id, PAYLOAD, number, namespace=namespace) for number in range(1, count + 1)]


def to_entities(record: TaskRecord, namespace: str) -> list[Any]:
    """Return the record's entity, then the pieces of its payload."""
    payload = record.payload
    pieces = [] if payload is None or len(payload) <= INLINE else _pieces(payload)
    values = {each.name: getattr(record, each.name) for each in fields(record) if each.name not in ("id", "state")}
    values |= {
        "routing": record.routing.to_json(),
        "last_error": shortened(storable(record.last_error)),
        "label": storable(record.label),
        "parts": len(pieces),
        "payload": None if pieces else payload,
    }
    entity = model(record.state)(key=key_of(record.id, record.state, namespace), **values)
    keys = part_keys(record.id, len(pieces), namespace)
    return [entity, *(part_model()(key=key, data=piece) for key, piece in zip(keys, pieces, strict=True))]


def to_record(entity: Any, payload: bytes | None) -> TaskRecord:
    """Return the record of an entity, with the payload that was read with it."""
    values = {each.name: getattr(entity, each.name) for each in fields(TaskRecord) if each.name not in ("id", "state")}
    values |= {"routing": Routing.from_json(entity.routing), "payload": payload}
    return TaskRecord(id=id_of(entity), state=state_of(entity), **values)


def state_of(entity: Any) -> State:
    """Return the state that an entity's kind says."""
    kind = entity.key.kind()
    return next(state for state, name in KINDS.items() if name == kind)


def id_of(entity: Any) -> str:
    """Return the id of the record that an entity belongs to."""
    return str(entity.key.pairs()[0][1])


def read(keys: list[Any]) -> list[Any]:
    """Return the entities of these keys, None for each that is missing, in one call."""
    from google.cloud import ndb

    for state in State:
        model(state)  # ndb must know the kinds that it reads
    part_model()
    return ndb.get_multi(keys, **DIRECT) if keys else []


def commit(written: list[Any], deleted: list[Any]) -> None:
    """Write and delete, in one call; in a transaction, when that commits."""
    from google.cloud import ndb

    futures = [*ndb.put_multi_async(written, **DIRECT), *ndb.delete_multi_async(deleted, **DIRECT)]
    for future in futures:
        future.check_success()


def chunks(written: list[Any], deleted: list[Any]) -> Iterator[tuple[list[Any], list[Any]]]:
    """Yield what is to be written and deleted, in pieces that one commit takes."""
    writes: list[Any] = []
    room = MAX_CHUNK
    for entity in written:
        size = _size(entity)
        if writes and (size > room or len(writes) == MAX_WRITES):
            yield writes, []
            writes, room = [], MAX_CHUNK
        writes.append(entity)
        room -= size
    first = MAX_WRITES - len(writes)
    yield writes, deleted[:first]
    for start in range(first, len(deleted), MAX_WRITES):
        yield [], deleted[start : start + MAX_WRITES]


def _size(entity: Any) -> int:
    """Return about how many bytes a record's entity has on the wire."""
    texts = len(entity.routing) + len(entity.last_error) + len(entity.label)
    return 1000 + len(entity.envelope) + len(entity.payload or b"") + 4 * texts


def slices(items: list[Any]) -> list[list[Any]]:
    """Return the pieces of a payload, or their keys, as many at a time as go in one call."""
    return [items[start : start + PIECES_AT_ONCE] for start in range(0, len(items), PIECES_AT_ONCE)]


def _pieces(payload: bytes) -> list[bytes]:
    return [payload[start : start + PART] for start in range(0, len(payload), PART)]
