"""From a Task to its record: packed, sealed in an envelope, inline if that fits and by claim check if not."""

from __future__ import annotations

from dataclasses import replace

from .. import clock
from ..config import Config, current
from ..errors import PayloadTooLargeError, TaskTooLargeError
from ..nouns import changed
from ..record import TaskRecord, new_id
from ..stores.base import MAX_PAYLOAD, TaskStore
from ..task import Task, TaskOptions
from ..telemetry import spans
from ..wire import binding, callables, encoder, envelope, frame
from ..wire.envelope import Envelope
from . import arguments, retrying


def seal(task: Task, config: Config) -> Envelope:
    """Return the envelope of a task. Raises CallableError, UnserializableError, or OptionError for a call that does not
    fit the callable."""
    now, payload, routing = clock.now(), encoder.pack_call(task, config), task.options.routing
    arguments.check(task.func, task.args, task.kwargs)  # once it is certain that this can be called at all
    return Envelope(
        payload=payload,
        created=now,
        deadline=routing.dispatch_deadline,
        expires=expiry(max(now, routing.eta or 0.0), config),
        trace={
            **spans.outgoing(),
            **retrying.outgoing(routing.retry),
            **binding.outgoing(routing.queue, config),
        },
    )


def expiry(due: float, config: Config) -> float | None:
    """Return the time at which a task that is due at `due` expires, else None."""
    return due + config.expires_after if config.expires_after else None


def serialize(task: Task) -> bytes:
    """Return the body of a task with its payload in it, however large; nothing is stored or sent. Raises CallableError
    or UnserializableError."""
    config = current()
    payload, now = encoder.pack_call(task, config), clock.now()
    sealed = Envelope(payload=payload, created=now, expires=expiry(now, config))
    return frame.wrap(envelope.encode(sealed, config.signer))


def inline(sealed: Envelope, wanted: TaskOptions, config: Config) -> bytes | None:
    """Return the encoded envelope if it fits inline, compressed if need be, else None. Raises TaskTooLargeError for a
    task that must stay inline."""
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


def new_record(task: Task, sealed: Envelope, wire: bytes | None, store: TaskStore | None, config: Config) -> TaskRecord:
    """Return the record of a task with its encoded envelope, or by claim check if `wire` is None. Raises
    PayloadTooLargeError, or TransportRefusedError for what the queue would not take."""
    routing, record_id = task.options.routing, new_id()
    record = TaskRecord(
        id=record_id,
        envelope=wire or b"",
        routing=changed(routing, name=routing.name or record_id, url=routing.url or config.post_url()),
        idempotent=task.options.idempotent,
        created=sealed.created,
        due=sealed.created + config.sweep_grace,
        label=callables.label(task.func, task.args),
    )
    config.the_transport.check(record.routing)
    return record if wire else with_claim_check(record, sealed, store, config)


def with_claim_check(record: TaskRecord, sealed: Envelope, store: TaskStore | None, config: Config) -> TaskRecord:
    """Return the record with the payload stored in it and a claim check in its envelope. Raises
    PayloadTooLargeError."""
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
    claim_check = envelope.ClaimCheck(
        store=store.name, alias=store.alias, key=record.id, digest=envelope.digest(payload), size=size
    )
    wire = envelope.encode(replace(sealed, payload=None, claim_check=claim_check), config.signer)
    return replace(record, envelope=wire, payload=payload)
