"""A store on Google's Datastore (or Firestore in Datastore mode), through google-cloud-ndb."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from ...errors import PayloadTooLargeError
from ...record import State, TaskRecord, new_id
from ..base import ForgetList, TaskStore, readable
from . import context as context
from . import entities as entities

log = logging.getLogger("defer")

Leased = list[TaskRecord]  # the method `list` hides the type from the methods after it
CARRIED = 20
"""Deletes that go in a caller's transaction, which may be limited to 25 entity groups in all."""


class NdbTaskStore(TaskStore):
    """Keeps records in one namespace, in the caller's ndb context (and transaction) if there is one, else in its own.

    `project`, `database` and `credentials` are for the client of work outside a context; None is the environment's.
    `namespace` applies whatever the context's own is. Transactions have no savepoints: an inner one joins the outer.
    """

    name: ClassVar[str] = "ndb"
    supports_records_beside_transaction: ClassVar[bool] = True

    def __init__(
        self, *, namespace: str = "", project: str | None = None, database: str | None = None, credentials: Any = None
    ) -> None:
        super().__init__()
        self.alias = namespace
        self.forgotten = _Forgotten()
        self._clients = context.Clients(project=project, database=database, credentials=credentials)

    # --- writing ------------------------------------------------------------------------------------------------------

    def put(self, records: Sequence[TaskRecord], forget: Sequence[str] = ()) -> None:
        with self._clients.context():
            groups = [entities.to_entities(record, self.alias) for record in records]
            stale = [entities.key_of(each, State.PENDING, self.alias) for each in forget]
            if context.in_transaction():
                _refuse_too_many(sum(map(len, groups)))
                entities.commit([each for group in groups for each in group], stale)
            else:
                self._put_now(groups, stale)

    def _put_now(self, groups: list[list[Any]], stale: list[Any]) -> None:
        """Write outside a transaction. Records of one entity, and the deletes of what was sent, need no transaction:
        they are one call, or several for many; if one of those fails, the earlier ones are taken back."""
        single = [group[0] for group in groups if len(group) == 1]
        chunks: list[tuple[list[Any], list[Any]]] = list(entities.chunks(single, stale))
        try:
            for group in groups:
                if len(group) > 1:
                    self._put_group(group)
            for chunk, deletes in chunks:
                entities.commit(chunk, deletes)
        except Exception:
            if len(groups) > 1:
                self._take_back([entities.id_of(group[0]) for group in groups])
            raise

    def _put_group(self, group: list[Any]) -> None:
        """Write a payload in pieces, in one transaction. Google's emulators take no request over 4 MiB: there the
        record comes last, and until then nothing refers to its pieces."""
        entity, *pieces = group
        if context.on_emulator() and len(pieces) > entities.PIECES_AT_ONCE:
            for some in entities.slices(pieces):
                entities.commit(some, [])
            pieces = []
        self._transaction(partial(entities.commit, [entity, *pieces], []))

    def _take_back(self, record_ids: list[str]) -> None:
        try:
            self.delete(record_ids)
        except Exception:
            log.exception("Records were written in part, and could not be deleted: the sweep will send them.")

    def delete(self, record_ids: Sequence[str], *, lease: str | None = None) -> int:
        deletes = [partial(self._delete_one, each, lease) for each in record_ids]
        with self._clients.context():
            futures = [context.transaction_async(delete) for delete in deletes]
            return sum(future.result() for future in futures)

    def _delete_one(self, record_id: str, lease: str | None) -> int:
        found = self._find(record_id)
        if found is None or (lease is not None and found.lease != lease):
            return 0
        entities.commit([], [found.key, *self._part_keys(found)])
        return 1

    def mark(self, record_id: str, *, lease: str, new_lease: str = "", **changes: Any) -> bool:
        return bool(self._transaction(partial(self._mark, record_id, lease, {**changes, "lease": new_lease})))

    def _mark(self, record_id: str, lease: str, changes: dict[str, Any]) -> bool:
        found = self._find(record_id)
        if found is None or found.lease != lease:
            return False
        self._rewrite(found, changes)
        return True

    def _rewrite(self, found: Any, changes: dict[str, Any]) -> None:
        """Write a record's entity anew; the pieces of its payload only if that changes."""
        changed = replace(entities.to_record(found, found.payload), **changes)
        [entity, *pieces] = entities.to_entities(changed, self.alias)
        stale = [] if entity.key == found.key else [found.key]
        if "payload" in changes:
            stale += self._part_keys(found)[len(pieces) :]
        else:
            entity.parts = found.parts
        entities.commit([entity, *pieces], stale)

    # --- reading ------------------------------------------------------------------------------------------------------

    def get(self, record_id: str) -> TaskRecord | None:
        with self._clients.context():
            found = None if context.in_transaction() else self._find(record_id)
            if found is not None and not found.parts:
                return entities.to_record(found, found.payload)
            # in pieces, or perhaps on its way from one state to another just then: one consistent read
            record: TaskRecord | None = self._transaction(partial(self._load, record_id))
            return record

    def _load(self, record_id: str) -> TaskRecord | None:
        found = self._find(record_id)
        return None if found is None else entities.to_record(found, self._payload(found))

    def _payload(self, found: Any) -> bytes | None:
        if not found.parts:
            return found.payload  # type: ignore[no-any-return]
        pieces = [piece for some in entities.slices(self._part_keys(found)) for piece in entities.read(some)]
        return b"".join(piece.data for piece in pieces if piece is not None)

    def _find(self, record_id: str) -> Any:
        """Return the entity of a record, whatever its state, else None."""
        found = entities.read([entities.key_of(record_id, state, self.alias) for state in State])
        return next((each for each in found if each is not None), None)

    def _part_keys(self, found: Any) -> list[Any]:
        return entities.part_keys(entities.id_of(found), found.parts, self.alias)

    def list(self, state: State, *, limit: int = 100, after: str = "") -> list[TaskRecord]:
        """Return records; the payload of one in pieces is b""."""
        with self._clients.context():
            cls = entities.model(state)
            query = cls.query(namespace=self.alias).order(cls.key)
            if after:
                query = query.filter(cls.key > entities.key_of(after, state, self.alias))
            found = query.fetch(limit, **entities.DIRECT)
            return readable(found, lambda each: entities.to_record(each, b"" if each.parts else each.payload))

    def count(self, state: State, *, due: float | None = None) -> int:
        with self._clients.context():
            cls = entities.model(state)
            query = cls.query(namespace=self.alias)
            return int(query.count() if due is None else query.filter(cls.due <= due).count())

    def count_unverified(self) -> int:
        with self._clients.context():
            cls = entities.model(State.DEAD)
            return int(cls.query(cls.verified == False, namespace=self.alias).count())  # noqa: E712 (a filter)

    def count_dead(self, since: float) -> int:
        with self._clients.context():
            cls = entities.model(State.DEAD)
            return int(cls.query(cls.last_attempt >= since, namespace=self.alias).count())

    def expire(self, before: float, *, limit: int) -> int:
        """Delete by keys from the index; each record is checked again in its transaction."""
        with self._clients.context():
            cls = entities.model(State.DEAD)
            old = cls.query(cls.last_attempt > 0.0, cls.last_attempt < before, namespace=self.alias)
            ids = [key.pairs()[0][1] for key in old.fetch(limit, keys_only=True)]
            never = cls.query(cls.last_attempt == None, namespace=self.alias)  # noqa: E711 (a filter)
            found = never.fetch(limit - len(ids), **entities.DIRECT) if len(ids) < limit else []
            ids += [entities.id_of(each) for each in found if each.created < before]
            gone = [context.transaction_async(partial(self._expire_one, each, before)) for each in ids]
            return sum(future.result() for future in gone)

    def _expire_one(self, record_id: str, before: float) -> int:
        found = self._find(record_id)
        if found is None or entities.state_of(found) is not State.DEAD:
            return 0
        if (found.last_attempt or found.created) >= before:
            return 0
        entities.commit([], [found.key, *self._part_keys(found)])
        return 1

    def oldest_pending(self) -> float | None:
        with self._clients.context():
            cls = entities.model(State.PENDING)
            oldest = cls.query(namespace=self.alias).order(cls.created).get(**entities.DIRECT)
            return None if oldest is None else float(oldest.created)

    # --- leases -------------------------------------------------------------------------------------------------------

    def lease_due(self, *, now: float, limit: int, seconds: float, state: State = State.PENDING) -> Leased:
        with self._clients.context(), context.beside_transaction():
            while ids := self._due(now, limit, state):
                if leased := self._lease(ids, now, seconds, State(state)):
                    return leased
                # others leased them all, so they are not due any more: look again
            return []

    def _due(self, now: float, limit: int, state: State) -> Sequence[str]:
        cls = entities.model(state)
        keys = cls.query(cls.due <= now, namespace=self.alias).order(cls.due).fetch(limit, keys_only=True)
        return [key.pairs()[0][1] for key in keys]

    def _lease(self, ids: Sequence[str], now: float, seconds: float, state: State) -> Leased:
        """Lease records, each in a transaction of its own, all concurrently."""
        from google.api_core.exceptions import Aborted

        futures = [context.transaction_async(partial(self._lease_one, each, now, seconds, state)) for each in ids]
        leased: Leased = []
        for future in futures:
            try:
                record = future.result()
            except Aborted:
                continue  # another process is leasing it
            if record is not None:
                leased.append(record)
        return leased

    def _lease_one(self, record_id: str, now: float, seconds: float, state: State) -> TaskRecord | None:
        found = self._find(record_id)
        if found is None or entities.state_of(found) is not state or found.due > now:
            return None
        payload = self._payload(found)
        records = readable([found], lambda entity: entities.to_record(entity, payload))
        if not records:
            found.due = now + seconds
            entities.commit([found], [])
            return None
        record = replace(records[0], lease=new_id(), due=now + seconds)
        self._rewrite(found, {"lease": record.lease, "due": record.due})
        return record

    # --- transactions -------------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._clients.context(), context.transaction_block():
            yield

    def in_transaction(self) -> bool:
        return context.in_transaction()

    def outside_transaction(self) -> AbstractContextManager[None]:
        return context.beside_transaction()

    def on_commit(self, func: Callable[[], object]) -> None:
        context.after_commit(func)

    def _transaction(self, func: Callable[[], Any]) -> Any:
        with self._clients.context():
            return context.transaction_async(func).result()


class _Forgotten(ForgetList):
    def peek(self) -> tuple[str, ...]:
        ids = super().peek()
        return ids[:CARRIED] if context.in_transaction() else ids


def _refuse_too_many(writes: int) -> None:
    if writes > entities.MAX_WRITES:
        raise PayloadTooLargeError(
            f"{writes} entities for one transaction, and the Datastore takes {entities.MAX_WRITES} in a commit: "
            "defer fewer calls in it, or defer one task that defers them.",
            size=writes,
            limit=entities.MAX_WRITES,
        )
