"""From a body to the task that it stands for: unframed, verified, its payload fetched if it is stored, unpacked."""

from __future__ import annotations

from .. import clock, log_fields
from ..config import Config
from ..delivery import Delivery, Ending
from ..errors import DecodeError, ExpiredError, NotYetReadableError, SignatureError, StoreNotConfiguredError
from ..logs import logger
from ..record import TaskRecord
from ..stores.base import TaskStore
from ..text import one_line
from ..upkeep import dead_letters, failing
from ..wire import binding, decoder, envelope, frame, legacy
from ..wire.decoded import DecodedTask

log = logger("defer")

CLOCK_SKEW = 300.0
"""Seconds that the clocks of two machines may differ by."""


def decode_body(body: bytes, delivery: Delivery, config: Config) -> DecodedTask | None:
    """Decode a body; return None if its stored payload is gone because the task was done. Raises DecodeError or
    NotYetReadableError."""
    if not frame.is_framed(body):
        return _decode_legacy(body, delivery, config)
    sealed = envelope.decode(frame.unwrap(body), config.signer, require_signature=delivery.require_signature)
    if sealed.expires is not None and clock.now() > sealed.expires:
        raise ExpiredError
    binding.check(sealed, delivery, config)
    if sealed.claim_check is not None:
        return _decode_stored(sealed.claim_check, sealed, body, delivery, config)
    return _decode(sealed.payload or b"", sealed, config)


def _decode_stored(
    check: envelope.ClaimCheck, sealed: envelope.Envelope, body: bytes, delivery: Delivery, config: Config
) -> DecodedTask | None:
    store = config.store_named(check.store, check.alias)
    if store is None:
        where = f"{check.store!r} {check.alias!r}".replace(" ''", "")
        raise StoreNotConfiguredError(f"The task's payload is in the store {where}, which is not configured here.")
    record = store.get(check.key)
    if record is None or record.payload is None:
        _missing(check, sealed, body, store, delivery, config)
        return None
    try:
        check.check(record.payload)
        return _decode(record.payload, sealed, config, record, store)
    except (DecodeError, NotYetReadableError) as error:
        if record.envelope == dead_letters.bare(body):  # else another task has made a claim check of its own
            error.kept = record, store
        raise


def _missing(
    check: envelope.ClaimCheck,
    sealed: envelope.Envelope,
    body: bytes,
    store: TaskStore,
    delivery: Delivery,
    config: Config,
) -> None:
    """Handle a claim check without a record. One that may not be there yet raises NotYetReadableError, to be retried
    for the grace; a lost one becomes a dead letter; otherwise the task was done before."""
    if within_grace(sealed.created, delivery, config) and not failing.is_last_of(sealed, delivery, config):
        raise NotYetReadableError(f"The payload {check.key} is not in the {store.name} store.")
    if delivery.retry_count == 0:
        error = f"Its payload {one_line(check.key)} is not in the {store.name} store."
        extra = log_fields.of_attempt(delivery, Ending.DEAD, reason="missing payload", error=error)
        log.error("Task %s in %s is lost (attempt %d): %s", *names(delivery), error, extra=extra)
        dead_letters.keep_body(body, delivery, None, config, reason="missing payload", store=store)
        return
    extra = log_fields.of_attempt(delivery, Ending.DONE)
    log.info("Task %s in %s was done before (attempt %d): there is nothing to do.", *names(delivery), extra=extra)


def _decode(
    payload: bytes,
    sealed: envelope.Envelope,
    config: Config,
    record: TaskRecord | None = None,
    store: TaskStore | None = None,
) -> DecodedTask:
    func, args, kwargs = decoder.unpack_call(payload, config)
    return DecodedTask(func=func, args=args, kwargs=kwargs, sealed=sealed, record=record, store=store)


def _decode_legacy(body: bytes, delivery: Delivery, config: Config) -> DecodedTask:
    """Decode a pickled triple of Google's deferred or of Djangae."""
    if not config.accept_legacy_pickles or not body:
        raise DecodeError("The body is not a task of defer. (Pickles of older libraries need `accept_legacy_pickles`.)")
    if delivery.require_signature:
        raise SignatureError("This authenticator needs a signed task, and pickles of older libraries are not.")
    func, args, kwargs = legacy.load(body, config.policy)
    return DecodedTask(func=func, args=args, kwargs=kwargs, sealed=envelope.Envelope())


def within_grace(created: float | None, delivery: Delivery, config: Config) -> bool:
    """Return True within the grace, counted from the later of creation and ETA. A time in the future is not believed,
    and a body without any time has no grace."""
    now = clock.now()
    since = max((each for each in (created, delivery.eta) if each and each <= now + CLOCK_SKEW), default=0.0)
    return now - since <= config.grace


def names(delivery: Delivery) -> tuple[str, str, int]:
    """Return the task, the queue and the number of an attempt, for a line of the log."""
    return one_line(delivery.task_name), one_line(delivery.queue), delivery.attempt
