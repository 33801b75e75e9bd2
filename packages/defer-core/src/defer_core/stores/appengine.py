"""A store on App Engine's bundled Datastore."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from ..record import State, TaskRecord, new_id
from . import appengine_entities as entities
from .base import ForgetList, TaskStore

log = logging.getLogger("defer")

Leased = list[TaskRecord]  # the method `list` hides the type from the methods after it
AT_ONCE = 3
"""Entities of a megabyte that are read or written in one call."""
BATCH, BATCH_BYTES = 400, 3_000_000
"""Smaller entities that are written in one call, and their bytes."""
_hooks: ContextVar[list[Callable[[], object]] | None] = ContextVar("defer_appengine_hooks", default=None)


class AppEngineTaskStore(TaskStore):
    """Keeps records in one namespace, in the caller's transaction (of `ndb` or `db`) if there is one.

    A record is an entity group of its own, so the caller's transaction must be `xg=True` where it has another.
    """

    name: ClassVar[str] = "appengine"
    supports_records_beside_transaction: ClassVar[bool] = True

    def __init__(self, *, namespace: str = "") -> None:
        super().__init__()
        self.alias = namespace
        self.forgotten = _Forgotten()

    # --- writing ------------------------------------------------------------------------------------------------------

    def put(self, records: Sequence[TaskRecord], forget: Sequence[str] = ()) -> None:
        groups = [self._group(record) for record in records]
        if self.in_transaction():
            _put_in_theirs([each for group in groups for each in group])
        else:
            self._put_now(groups)
        _delete([entities.key_of(each, self.alias) for each in forget])

    def _put_now(self, groups: Sequence[list[Any]]) -> None:
        """Small records many in a call, a payload in pieces in a transaction; a failure takes back what went before."""
        try:
            for batch in _batches([group[0] for group in groups if len(group) == 1]):
                _put(batch, at_once=BATCH)
            for group in groups:
                if len(group) > 1:
                    _transact(partial(_put, group))
        except Exception:
            if len(groups) > 1:
                self._take_back([entities.id_of(group[0].key()) for group in groups])
            raise

    def _take_back(self, record_ids: Sequence[str]) -> None:
        try:
            self.delete(record_ids)
        except Exception:
            log.exception("Records were written in part, and could not be deleted: the sweep will send them.")

    def _group(self, record: TaskRecord) -> list[Any]:
        pieces = entities.pieces_of(record, self.alias)
        return [entities.entity_of(record, self.alias, parts=len(pieces)), *pieces]

    def delete(self, record_ids: Sequence[str], *, lease: str | None = None) -> int:
        return sum(_transact(partial(self._delete_one, each, lease)) for each in record_ids)

    def _delete_one(self, record_id: str, lease: str | None) -> int:
        found = self._find(record_id)
        if found is None or (lease is not None and found["lease"] != lease):
            return 0
        _delete([found.key(), *self._part_keys(found)])
        return 1

    def mark(self, record_id: str, *, lease: str, new_lease: str = "", **changes: Any) -> bool:
        return bool(_transact(partial(self._mark, record_id, lease, {**changes, "lease": new_lease})))

    def _mark(self, record_id: str, lease: str, changes: dict[str, Any]) -> bool:
        found = self._find(record_id)
        if found is None or found["lease"] != lease:
            return False
        self._rewrite(found, changes)
        return True

    def _rewrite(self, found: Any, changes: dict[str, Any]) -> None:
        """Write a record's entity anew; the pieces of its payload only where that changes."""
        record, pieces = replace(_whole(found), **changes), []
        if "payload" in changes:
            pieces = entities.pieces_of(record, self.alias)
            _delete(self._part_keys(found)[len(pieces) :])
        parts = len(pieces) if "payload" in changes else found["parts"]
        entity = entities.entity_of(record, self.alias, parts=parts)
        if entity.key() != found.key():
            _delete([found.key()])
        _put([entity, *pieces])

    # --- reading ------------------------------------------------------------------------------------------------------

    def get(self, record_id: str) -> TaskRecord | None:
        record: TaskRecord | None = _transact(partial(self._load, record_id))
        return record

    def _load(self, record_id: str) -> TaskRecord | None:
        found = self._find(record_id)
        return None if found is None else self._read(found)

    def _read(self, found: Any) -> TaskRecord:
        if not found["parts"]:
            return _whole(found)
        pieces = _get(self._part_keys(found))
        return entities.record_of(found, b"".join(piece["data"] for piece in pieces if piece is not None))

    def _find(self, record_id: str) -> Any:
        """The entity of a record, whatever its state, or None."""
        found = _get([entities.key_of(record_id, self.alias, pending=pending) for pending in (True, False)])
        return next((each for each in found if each is not None), None)

    def _part_keys(self, found: Any) -> Any:
        record_id = entities.id_of(found.key())
        return [entities.part_key(record_id, number, self.alias) for number in range(1, found["parts"] + 1)]

    def list(self, state: State, *, limit: int = 100, after: str = "") -> list[TaskRecord]:
        """Of a payload in pieces only b"" is given."""
        pending = state is State.PENDING
        query = self._query(state)
        if after:
            query["__key__ >"] = entities.key_of(after, self.alias, pending=pending)
        query.Order("__key__")
        return [_whole(each) for each in query.Get(limit)]

    def count(self, state: State) -> int:
        return int(self._query(state).Count(limit=None))

    def oldest_pending(self) -> float | None:
        query = self._query(State.PENDING)
        query.Order("created")
        return next((float(each["created"]) for each in query.Get(1)), None)

    def _query(self, state: State, **options: Any) -> Any:
        from google.appengine.api import datastore

        if state is State.PENDING:
            return datastore.Query(entities.ROOT, namespace=self.alias, **options)
        return datastore.Query(entities.KEPT, {"state =": str(state)}, namespace=self.alias, **options)

    # --- leases -------------------------------------------------------------------------------------------------------

    def lease_due(self, *, now: float, limit: int, seconds: float) -> Leased:
        while ids := self._due(now, limit):
            taken = [self._lease(each, now, seconds) for each in ids]
            if leased := [record for record in taken if record is not None]:
                return leased
            # others took them all, so they are not due any more: look again
        return []

    def _due(self, now: float, limit: int) -> Sequence[str]:
        query = self._query(State.PENDING, keys_only=True)
        query["due <="] = now
        query.Order("due")
        return [entities.id_of(key) for key in query.Get(limit)]

    def _lease(self, record_id: str, now: float, seconds: float) -> TaskRecord | None:
        from google.appengine.api import datastore_errors

        try:
            leased: TaskRecord | None = _transact(partial(self._lease_one, record_id, now, seconds))
        except datastore_errors.TransactionFailedError:
            return None  # somebody else is at it
        return leased

    def _lease_one(self, record_id: str, now: float, seconds: float) -> TaskRecord | None:
        found = self._find(record_id)
        if found is None or found["state"] != State.PENDING or found["due"] > now:
            return None
        record = replace(self._read(found), lease=new_id(), due=now + seconds)
        self._rewrite(found, {"lease": record.lease, "due": record.due})
        return record

    # --- transactions -------------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Over several entity groups; an inner one joins the outer, which has no savepoints. It is not repeated."""
        if self.in_transaction():
            yield
            return
        hooks: list[Callable[[], object]] = []
        token = _hooks.set(hooks)
        try:
            with _begun():
                yield
        finally:
            _hooks.reset(token)
        for hook in hooks:
            hook()

    def in_transaction(self) -> bool:
        from google.appengine.api import datastore

        return bool(datastore.IsInTransaction())

    @contextmanager
    def outside_transaction(self) -> Iterator[None]:
        from google.appengine.api import datastore
        from google.appengine.datastore import datastore_rpc

        datastore._PushConnection(datastore_rpc.Connection(adapter=datastore.DatastoreAdapter()))
        try:
            yield
        finally:
            datastore._PopConnection()

    def on_commit(self, func: Callable[[], object]) -> None:
        """In a transaction of `db`, which has no hooks, `func` is not called: what it was to send is the sweep's."""
        from google.appengine.ext import ndb

        hooks = _hooks.get()
        if not self.in_transaction():
            func()
        elif hooks is not None:
            hooks.append(func)
        elif ndb.in_transaction():
            ndb.get_context().call_on_commit(func)
        else:
            log.info("A transaction of `db` has no hooks: the sweep sends its tasks.")


class _Forgotten(ForgetList):
    def peek(self) -> tuple[str, ...]:
        """Nothing within a transaction, where each delete would be one more entity group."""
        from google.appengine.api import datastore

        return () if datastore.IsInTransaction() else super().peek()


def _whole(found: Any) -> TaskRecord:
    """The record of an entity; of a payload in pieces only b""."""
    payload = b"" if found["parts"] else found["payload"]
    return entities.record_of(found, None if payload is None else bytes(payload))


def _batches(written: Sequence[Any]) -> list[list[Any]]:
    """Entities that go in one call."""
    batches: list[list[Any]] = []
    room = 0
    for entity in written:
        size = 1000 + len(entity["envelope"]) + len(entity["payload"] or b"") + 2 * len(entity["last_error"])
        if size > room or len(batches[-1]) == BATCH:
            batches.append([])
            room = BATCH_BYTES
        batches[-1].append(entity)
        room -= size
    return batches


@contextmanager
def _begun() -> Iterator[None]:
    from google.appengine.api import datastore, datastore_errors
    from google.appengine.datastore import datastore_rpc

    connection = datastore._GetConnection().new_transaction(datastore_rpc.TransactionOptions(xg=True))
    datastore._PushConnection(connection)
    try:
        try:
            yield
        except BaseException:
            connection.rollback()
            raise
        if not connection.commit():
            raise datastore_errors.TransactionFailedError("The transaction met another one, and was not committed.")
    finally:
        datastore._PopConnection()


@contextmanager
def _connected() -> Iterator[None]:
    """The caller's transaction, spoken to in plain entities: ndb's own connection only takes its models."""
    from google.appengine.api import datastore
    from google.appengine.datastore import datastore_rpc

    theirs = datastore._GetConnection()
    if isinstance(theirs.adapter, datastore.DatastoreAdapter):
        yield
        return
    make = partial(datastore_rpc.Connection, adapter=datastore.DatastoreAdapter(), config=theirs.config)
    if datastore.IsInTransaction():
        make = partial(
            datastore_rpc.TransactionalConnection,
            adapter=datastore.DatastoreAdapter(),
            config=theirs.config,
            transaction=theirs.transaction,
        )
    datastore._PushConnection(make())
    try:
        yield
    finally:
        datastore._PopConnection()


def _transact(func: Callable[[], Any]) -> Any:
    """`func()` in the surrounding transaction, else in its own one, which is repeated on contention."""
    from google.appengine.api import datastore

    return func() if datastore.IsInTransaction() else datastore.RunInTransaction(func)


def _put(written: Sequence[Any], at_once: int = AT_ONCE) -> None:
    from google.appengine.api import datastore

    with _connected():
        for start in range(0, len(written), at_once):
            datastore.Put(list(written[start : start + at_once]))


def _put_in_theirs(written: Sequence[Any]) -> None:
    from google.appengine.api import datastore_errors

    try:
        _put(written)
    except datastore_errors.BadRequestError as error:
        remedy = "The record of a task is an entity group of its own: begin the transaction with xg=True."
        raise datastore_errors.BadRequestError(f"{error} {remedy}") from error


def _delete(keys: Sequence[Any]) -> None:
    from google.appengine.api import datastore

    with _connected():
        if keys:
            datastore.Delete(list(keys))


def _get(keys: Sequence[Any]) -> list[Any]:
    from google.appengine.api import datastore

    with _connected():
        found: list[Any] = []
        for start in range(0, len(keys), AT_ONCE):
            found += datastore.Get(list(keys[start : start + AT_ONCE]))
        return found
