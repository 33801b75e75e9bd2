"""From a Task to its record: packed, sealed in an envelope, inline if that fits and claimed if not."""

from __future__ import annotations

from dataclasses import replace

from . import callables, clock, codec, envelope, frame, tracing
from .config import Config
from .envelope import Envelope
from .errors import PayloadTooLargeError, TaskTooLargeError
from .frozen import changed, made
from .record import TaskRecord, new_id
from .stores.base import MAX_PAYLOAD, TaskStore
from .task import Task, TaskOptions


def seal(task: Task, config: Config) -> Envelope:
    """The envelope of a task. Raises CallableError or UnserializableError."""
    now = clock.now()
    return made(
        Envelope,
        payload=codec.pack_call(task, config),
        created=now,
        deadline=task.options.routing.dispatch_deadline,
        expires=now + config.expires_after if config.expires_after else None,
        trace=tracing.outgoing(),
    )


def inline(sealed: Envelope, wanted: TaskOptions, config: Config) -> bytes | None:
    """An envelope's bytes if they fit the inline limit, be it compressed; None where the payload is to be claimed.
    Raises TaskTooLargeError for a task that must not be."""
    limit = min(config.inline_limit, config.the_transport.max_body)
    wire = envelope.encode(sealed, config.signer)
    if len(wire) + frame.OVERHEAD <= limit:
        return wire
    if len(sealed.payload or b"") <= MAX_PAYLOAD:
        smaller = envelope.encode(sealed, config.signer, compress=True)
        if len(smaller) + frame.OVERHEAD <= limit:
            return smaller
    if wanted.small:
        size = len(wire) + frame.OVERHEAD
        message = f"The task is {size} bytes long and the inline limit is {limit}: leave `_small_task` out."
        raise TaskTooLargeError(message, size=size, limit=limit)
    return None


def recorded(task: Task, sealed: Envelope, wire: bytes | None, store: TaskStore | None, config: Config) -> TaskRecord:
    """The record of a sealed task, inline or claimed. Raises PayloadTooLargeError, or TransportRefusedError for what
    the queue would not take."""
    routing, record_id = task.options.routing, new_id()
    record = made(
        TaskRecord,
        id=record_id,
        envelope=wire or b"",
        routing=changed(routing, name=routing.name or record_id, url=routing.url or config.post_url()),
        idempotent=task.options.idempotent,
        created=sealed.created,
        due=sealed.created + config.sweep_grace,
        label=callables.label(task.func),
    )
    config.the_transport.check(record.routing)
    return record if wire else claimed(record, sealed, store, config)


def record_of(task: Task, store: TaskStore | None, config: Config) -> TaskRecord:
    """The record of a task. Raises CallableError, UnserializableError, TaskTooLargeError, PayloadTooLargeError or
    TransportRefusedError."""
    sealed = seal(task, config)
    return recorded(task, sealed, inline(sealed, task.options, config), store, config)


def claimed(record: TaskRecord, sealed: Envelope, store: TaskStore | None, config: Config) -> TaskRecord:
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
