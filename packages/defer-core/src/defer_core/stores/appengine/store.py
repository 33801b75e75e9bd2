"""A store on App Engine's bundled Datastore."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from ... import platform
from ...extras import require
from ...record import State, TaskRecord, new_id
from ..base import ForgetList, TaskStore, readable
from . import context as context
from . import entities as entities

log = logging.getLogger("defer")

Leased = list[TaskRecord]  # the method `list` hides the type from the methods after it


class AppEngineTaskStore(TaskStore):
    """Keeps records in one namespace, in the caller's transaction (of `ndb` or `db`) if there is one.

    A record is an entity group of its own, so the caller's transaction must be `xg=True` if it uses another.
    """

    name: ClassVar[str] = "appengine"
    supports_records_beside_transaction: ClassVar[bool] = True

    def __init__(self, *, namespace: str = "") -> None:
        require("appengine")
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
        context.delete([entities.key_of(each, State.PENDING, self.alias) for each in forget])

    def _put_now(self, groups: Sequence[list[Any]]) -> None:
        """Write small records many in a call, and a payload in pieces in a transaction; after a failure, take back what
        was written before."""
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
        """Write a record's entity anew; the pieces of its payload only if that changes."""
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
        return None if found is None else entities.record_of(found, self._payload(found))

    def _payload(self, found: Any) -> bytes | None:
        if not found["parts"]:
            return None if found["payload"] is None else bytes(found["payload"])
        pieces = context.get(self._part_keys(found))
        return b"".join(piece["data"] for piece in pieces if piece is not None)

    def _find(self, record_id: str) -> Any:
        """Return the entity of a record, whatever its state, else None."""
        found = context.get([entities.key_of(record_id, state, self.alias) for state in State])
        return next((each for each in found if each is not None), None)

    def _part_keys(self, found: Any) -> Any:
        record_id = entities.id_of(found.key())
        return [entities.part_key(record_id, number, self.alias) for number in range(1, found["parts"] + 1)]

    def list(self, state: State, *, limit: int = 100, after: str = "") -> list[TaskRecord]:
        """Return records; the payload of one in pieces is b""."""
        query = self._query(state)
        if after:
            query["__key__ >"] = entities.key_of(after, state, self.alias)
        query.Order("__key__")
        return readable(query.Get(limit), entities.whole)

    def count(self, state: State, *, due: float | None = None) -> int:
        query = self._query(state)
        if due is not None:
            query["due <="] = due
        return int(query.Count(limit=None))

    def count_unverified(self) -> int:
        query = self._query(State.DEAD)
        query["verified ="] = False
        return int(query.Count(limit=None))

    def count_dead(self, since: float) -> int:
        query = self._query(State.DEAD)
        query["last_attempt >="] = since
        return int(query.Count(limit=None))

    def expire(self, before: float, *, limit: int) -> int:
        """Delete by keys from the index; each record is checked again in its transaction."""
        old = self._query(State.DEAD, keys_only=True)
        old["last_attempt >"], old["last_attempt <"] = 0.0, before
        ids = [entities.id_of(key) for key in old.Get(limit)]
        never = self._query(State.DEAD)
        never["last_attempt ="] = None
        found = never.Get(limit - len(ids)) if len(ids) < limit else []
        ids += [entities.id_of(each.key()) for each in found if each["created"] < before]
        return sum(context.transact(partial(self._expire_one, each, before)) for each in ids)

    def _expire_one(self, record_id: str, before: float) -> int:
        found = self._find(record_id)
        if found is None or found["state"] != State.DEAD or (found["last_attempt"] or found["created"]) >= before:
            return 0
        context.delete([found.key(), *self._part_keys(found)])
        return 1

    def oldest_pending(self) -> float | None:
        query = self._query(State.PENDING)
        query.Order("created")
        return next((float(each["created"]) for each in query.Get(1)), None)

    def _query(self, state: State, **options: Any) -> Any:
        from google.appengine.api import datastore

        platform.require_bundled_service(platform.DATASTORE)
        return datastore.Query(entities.KINDS[State(state)], namespace=self.alias, **options)

    # --- leases -------------------------------------------------------------------------------------------------------

    def lease_due(self, *, now: float, limit: int, seconds: float, state: State = State.PENDING) -> Leased:
        while ids := self._due(now, limit, state):
            taken = [self._lease(each, now, seconds, state) for each in ids]
            if leased := [record for record in taken if record is not None]:
                return leased
            # others leased them all, so they are not due any more: look again
        return []

    def _due(self, now: float, limit: int, state: State) -> Sequence[str]:
        query = self._query(state, keys_only=True)
        query["due <="] = now
        query.Order("due")
        return [entities.id_of(key) for key in query.Get(limit)]

    def _lease(self, record_id: str, now: float, seconds: float, state: State) -> TaskRecord | None:
        from google.appengine.api import datastore_errors

        try:
            leased: TaskRecord | None = context.transact(partial(self._lease_one, record_id, now, seconds, state))
        except datastore_errors.TransactionFailedError:
            return None  # another process is leasing it
        return leased

    def _lease_one(self, record_id: str, now: float, seconds: float, state: State) -> TaskRecord | None:
        found = self._find(record_id)
        if found is None or found["state"] != state or found["due"] > now:
            return None
        payload = self._payload(found)
        records = readable([found], lambda entity: entities.record_of(entity, payload))
        if not records:
            found["due"] = now + seconds
            context.put([found])
            return None
        record = replace(records[0], lease=new_id(), due=now + seconds)
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
        """Return nothing within a transaction, where each delete would be one more entity group."""
        return () if context.in_transaction() else super().peek()
