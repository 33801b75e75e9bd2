"""A store on App Engine's bundled Datastore."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from .. import bundled
from ..record import State, TaskRecord, new_id
from . import appengine_context as context
from . import appengine_entities as entities
from .base import ForgetList, TaskStore

log = logging.getLogger("defer")

Leased = list[TaskRecord]  # the method `list` hides the type from the methods after it


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
            context.put_in_theirs([each for group in groups for each in group])
        else:
            self._put_now(groups)
        context.delete([entities.key_of(each, self.alias) for each in forget])

    def _put_now(self, groups: Sequence[list[Any]]) -> None:
        """Small records many in a call, a payload in pieces in a transaction; a failure takes back what went before."""
        try:
            for batch in entities.batches([group[0] for group in groups if len(group) == 1]):
                context.put(batch, at_once=entities.BATCH)
            for group in groups:
                if len(group) > 1:
                    context.transact(partial(context.put, group))
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
        return sum(context.transact(partial(self._delete_one, each, lease)) for each in record_ids)

    def _delete_one(self, record_id: str, lease: str | None) -> int:
        found = self._find(record_id)
        if found is None or (lease is not None and found["lease"] != lease):
            return 0
        context.delete([found.key(), *self._part_keys(found)])
        return 1

    def mark(self, record_id: str, *, lease: str, new_lease: str = "", **changes: Any) -> bool:
        return bool(context.transact(partial(self._mark, record_id, lease, {**changes, "lease": new_lease})))

    def _mark(self, record_id: str, lease: str, changes: dict[str, Any]) -> bool:
        found = self._find(record_id)
        if found is None or found["lease"] != lease:
            return False
        self._rewrite(found, changes)
        return True

    def _rewrite(self, found: Any, changes: dict[str, Any]) -> None:
        """Write a record's entity anew; the pieces of its payload only where that changes."""
        record, pieces = replace(entities.whole(found), **changes), []
        if "payload" in changes:
            pieces = entities.pieces_of(record, self.alias)
            context.delete(self._part_keys(found)[len(pieces) :])
        parts = len(pieces) if "payload" in changes else found["parts"]
        entity = entities.entity_of(record, self.alias, parts=parts)
        if entity.key() != found.key():
            context.delete([found.key()])
        context.put([entity, *pieces])

    # --- reading ------------------------------------------------------------------------------------------------------

    def get(self, record_id: str) -> TaskRecord | None:
        record: TaskRecord | None = context.transact(partial(self._load, record_id))
        return record

    def _load(self, record_id: str) -> TaskRecord | None:
        found = self._find(record_id)
        return None if found is None else self._read(found)

    def _read(self, found: Any) -> TaskRecord:
        if not found["parts"]:
            return entities.whole(found)
        pieces = context.get(self._part_keys(found))
        return entities.record_of(found, b"".join(piece["data"] for piece in pieces if piece is not None))

    def _find(self, record_id: str) -> Any:
        """The entity of a record, whatever its state, or None."""
        found = context.get([entities.key_of(record_id, self.alias, pending=pending) for pending in (True, False)])
        return next((each for each in found if each is not None), None)

    def _part_keys(self, found: Any) -> Any:
        record_id = entities.id_of(found.key())
        return [entities.part_key(record_id, number, self.alias) for number in range(1, found["parts"] + 1)]

    def list(self, state: State, *, limit: int = 100, after: str = "") -> list[TaskRecord]:
        """Of a payload in pieces only b"" is given."""
        pending = state == State.PENDING
        query = self._query(state)
        if after:
            query["__key__ >"] = entities.key_of(after, self.alias, pending=pending)
        query.Order("__key__")
        return [entities.whole(each) for each in query.Get(limit)]

    def count(self, state: State) -> int:
        return int(self._query(state).Count(limit=None))

    def oldest_pending(self) -> float | None:
        query = self._query(State.PENDING)
        query.Order("created")
        return next((float(each["created"]) for each in query.Get(1)), None)

    def _query(self, state: State, **options: Any) -> Any:
        from google.appengine.api import datastore

        bundled.check_reachable(bundled.DATASTORE)
        if state == State.PENDING:
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
            leased: TaskRecord | None = context.transact(partial(self._lease_one, record_id, now, seconds))
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

    def transaction(self) -> AbstractContextManager[None]:
        return context.transaction_block()

    def in_transaction(self) -> bool:
        return context.in_transaction()

    def outside_transaction(self) -> AbstractContextManager[None]:
        return context.beside_transaction()

    def on_commit(self, func: Callable[[], object]) -> None:
        context.after_commit(func)


class _Forgotten(ForgetList):
    def peek(self) -> tuple[str, ...]:
        """Nothing within a transaction, where each delete would be one more entity group."""
        return () if context.in_transaction() else super().peek()
