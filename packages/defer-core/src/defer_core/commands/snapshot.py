"""What `status` shows, at one moment. Its cost is bounded: records are counted, and few of them are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, TypedDict

from .. import clock
from ..config import Config
from ..config.queues import declared
from ..record import State, TaskRecord
from ..stores.base import TaskStore
from ..text import last_line, one_line
from ..transports.base import QueueState
from ..transports.cloud.queues import QueueAdmin
from ..transports.cloud.transport import CloudTasksTransport
from ..upkeep.health import health
from ..upkeep.sections import Section, sections
from ..wire.describe import describe


class QueueRow(TypedDict):
    """A queue; None is what it does not say."""

    name: str
    state: str
    tasks: int | None
    due: int | None
    running: int | None
    error: str


class StoreRow(TypedDict):
    """A store, with the number of its records in each state; None for one that cannot be read, and `error` says why."""

    store: str
    alias: str
    waiting: int | None
    late: int | None
    oldest: float | None
    sent: int | None
    failing: int | None
    dead: int | None
    error: str


class FailingRow(TypedDict):
    """A task that has failed, and that its queue is to run again."""

    id: str
    store: str
    alias: str
    queue: str
    task: str
    function: str
    call: str
    attempts: int
    last_attempt: str | None
    error: str


class Snapshot(TypedDict):
    """The object that `status --json` prints."""

    time: str
    healthy: bool
    reasons: list[str]
    transport: str | None
    queues: list[QueueRow]
    stores: list[StoreRow]
    failing: list[FailingRow]
    sections: dict[str, list[dict[str, Any]]]


def take(config: Config, limit: int) -> Snapshot:
    """Take a snapshot, with at most `limit` failing tasks, and as many rows of each section. What cannot be read is a
    row with its error."""
    found, stores = health(), config.every_store()
    return Snapshot(
        time=_time(clock.now()),
        healthy=found.healthy,
        reasons=list(found.reasons),
        transport=None if config.transport is None else config.the_transport.name,
        queues=[_queue_row(each) for each in _queues(config)],
        stores=[counted(store) for store in stores],
        failing=list(_failing(stores, config, limit)),
        sections={name: _rows(section, limit) for name, section in sections.items()},
    )


def _queues(config: Config) -> list[QueueState]:
    """Return the queues that the transport knows, and those that are declared."""
    if config.transport is None:
        return []
    transport, names = config.the_transport, list(declared(config))
    if isinstance(transport, CloudTasksTransport):
        return list(_asked(QueueAdmin(transport), names))
    try:
        known = {each.name: each for each in transport.queue_states()}
    except Exception as error:
        return [QueueState(name=name, state="unknown", error=one_line(error)) for name in names or [transport.name]]
    return [known.get(name) or QueueState(name=name) for name in sorted({*known, *names})]


def _queue_row(queue: QueueState) -> QueueRow:
    return QueueRow(
        name=queue.name,
        state=queue.state,
        tasks=queue.tasks,
        due=queue.due,
        running=queue.running,
        error=queue.error,
    )


def _asked(admin: QueueAdmin, names: list[str]) -> Iterator[QueueState]:
    """Ask Cloud Tasks about each queue, until it cannot be reached."""
    reached = True
    for name in names:
        try:
            yield QueueState(name=name, state=admin.state(name).lower() if reached else "unknown")
        except Exception as error:  # of the service, of credentials
            reached = getattr(error, "code", None) in ("NOT_FOUND", "PERMISSION_DENIED")
            yield QueueState(name=name, state="unknown", error=one_line(error))


def counted(store: TaskStore) -> StoreRow:
    """Count the records of a store. Never raises: the row says why it cannot be read."""
    try:
        now, oldest = clock.now(), store.oldest_pending()
        return StoreRow(
            store=store.name,
            alias=store.alias,
            waiting=store.count(State.PENDING),
            late=store.count(State.PENDING, due=now),
            oldest=None if oldest is None else round(max(0.0, now - oldest), 1),
            sent=store.count(State.SENT),
            failing=store.count(State.FAILING),
            dead=store.count(State.DEAD),
            error="",
        )
    except Exception as error:
        return StoreRow(
            store=store.name, alias=store.alias, waiting=None, late=None, oldest=None, sent=None, failing=None,
            dead=None, error=one_line(repr(error)),
        )  # fmt: skip


def _failing(stores: tuple[TaskStore, ...], config: Config, limit: int) -> Iterator[FailingRow]:
    for store in stores:
        try:
            records = store.list(State.FAILING, limit=limit) if limit > 0 else []
        except Exception:  # its row among the stores says why
            continue
        for record in records:
            yield _failed(record, store, config)
        limit -= len(records)


def _failed(record: TaskRecord, store: TaskStore, config: Config) -> FailingRow:
    return FailingRow(
        id=record.id,
        store=store.name,
        alias=store.alias,
        queue=record.routing.queue,
        task=one_line(record.routing.name or ""),
        function=one_line(record.label),
        call=one_line(describe(record, config)),
        attempts=record.attempts,
        last_attempt=None if record.last_attempt is None else _time(record.last_attempt),
        error=last_line(record.last_error),
    )


def _rows(section: Section, limit: int) -> list[dict[str, Any]]:
    try:
        rows: list[Mapping[str, Any]] = [*section(limit)][:limit]
    except Exception as error:
        rows = [{"error": repr(error)}]
    return [{name: one_line(value) if isinstance(value, str) else value for name, value in row.items()} for row in rows]


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
