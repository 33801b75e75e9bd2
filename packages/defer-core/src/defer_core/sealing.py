"""From a Task to its record: packed, sealed in an envelope, inline if that fits and claimed if not."""

from __future__ import annotations

from dataclasses import replace

from . import callables, clock, codec, envelope, frame, tracing
from .config import Config
from .errors import PayloadTooLargeError, TaskTooLargeError
from .frozen import made
from .record import TaskRecord, new_id
from .stores.base import MAX_PAYLOAD, TaskStore
from .task import Task


def seal(task: Task, store: TaskStore | None, config: Config) -> TaskRecord:
    """The record of a task. Raises CallableError, UnserializableError, TaskTooLargeError or PayloadTooLargeError."""
    now, routing = clock.now(), task.options.routing
    record_id = new_id()
    sealed = made(
        envelope.Envelope,
        payload=codec.pack_call(task, config),
        created=now,
        deadline=routing.dispatch_deadline,
        expires=now + config.expires_after if config.expires_after else None,
        trace=tracing.outgoing(),
    )
    record = made(
        TaskRecord,
        id=record_id,
        envelope=envelope.encode(sealed, config.signer),
        routing=routing.addressed(routing.name or record_id, routing.url or config.post_url()),
        idempotent=task.options.idempotent,
        created=now,
        due=now + config.sweep_grace,
        label=callables.label(task.func),
    )
    return _fitted(record, sealed, task, store, config)


def _fitted(
    record: TaskRecord, sealed: envelope.Envelope, task: Task, store: TaskStore | None, config: Config
) -> TaskRecord:
    """The record as it is where it fits the inline limit, else compressed, else claimed."""
    limit = min(config.inline_limit, config.the_transport.max_body)
    size = len(record.envelope) + frame.OVERHEAD
    if size <= limit:
        return record
    if len(sealed.payload or b"") <= MAX_PAYLOAD:
        smaller = envelope.encode(sealed, config.signer, compress=True)
        if len(smaller) + frame.OVERHEAD <= limit:
            return replace(record, envelope=smaller)
    if task.options.small:
        message = f"The task is {size} bytes long and the inline limit is {limit}: leave `_small_task` out."
        raise TaskTooLargeError(message, size=size, limit=limit)
    return claimed(record, sealed, store, config)


def claimed(record: TaskRecord, sealed: envelope.Envelope, store: TaskStore | None, config: Config) -> TaskRecord:
    """The record with its payload beside the envelope, which only claims it. Raises PayloadTooLargeError."""
    payload = sealed.payload or b""
    size, limit = len(payload), store.max_payload if store else config.inline_limit
    if store is None:
        message = (
            f"The call is {size} bytes long, over the inline limit of {limit}, and no `store` is configured to keep it."
        )
        raise PayloadTooLargeError(message, size=size, limit=limit)
    if size > limit:
        message = (
            f"The call is {size} bytes long, and a store takes {limit}: store the data yourself, and defer its key."
        )
        raise PayloadTooLargeError(message, size=size, limit=limit)
    claim = envelope.Claim(
        store=store.name, alias=store.alias, key=record.id, digest=envelope.digest(payload), size=size
    )
    wire = envelope.encode(replace(sealed, payload=None, claim=claim), config.signer)
    return replace(record, envelope=wire, payload=payload)
