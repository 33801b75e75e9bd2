"""What becomes of a body that cannot be read: it is retried for a grace, if that may help, or is a dead letter."""

from __future__ import annotations

from .. import log_fields
from ..config import Config
from ..delivery import Delivery, Ending
from ..errors import DecodeError, NotYetReadableError, UnknownKeyError, UnknownVersionError
from ..logs import logger
from ..text import one_line
from ..upkeep import dead_letters, failing
from ..wire import envelope, frame
from .decode import names, within_grace

log = logger("defer")


def note(body: bytes, delivery: Delivery, error: NotYetReadableError | DecodeError, config: Config) -> Ending:
    """Log an attempt at a body that cannot be read, and keep what can be kept of one that is given up. Return how the
    attempt has ended: RETRY or DEAD."""
    if isinstance(error, NotYetReadableError):
        return _wait(body, delivery, error, config)
    extra = log_fields.of_attempt(delivery, Ending.DEAD, reason=error.reason, error=str(error))
    log.error("Task %s in %s cannot be read (attempt %d): %s", *names(delivery), one_line(error), extra=extra)
    verified = _verifies(body, delivery, config)
    _keep_unread(body, delivery, error, config, reason=error.reason, verified=verified)
    return Ending.DEAD


def _verifies(body: bytes, delivery: Delivery, config: Config) -> bool:
    """Return True if an unreadable body can be trusted: by its envelope, or (another library's) by the
    authenticator."""
    if not frame.is_framed(body):
        return not delivery.require_signature and (config.signer is None or config.accept_legacy_pickles)
    try:
        envelope.decode(frame.unwrap(body), config.signer, require_signature=delivery.require_signature)
    except (DecodeError, NotYetReadableError):
        return False
    return True


def _wait(body: bytes, delivery: Delivery, error: NotYetReadableError, config: Config) -> Ending:
    """Retry an unreadable task for the grace, as long as its queue does; then make it a dead letter."""
    created = envelope.created_at(frame.unwrap(body)) if frame.is_framed(body) else None
    last = failing.is_last_of(dead_letters.sealed_of(body, config), delivery, config)
    if within_grace(created, delivery, config) and not last:
        extra = log_fields.of_attempt(delivery, Ending.RETRY, error=str(error))
        log.warning("Task %s in %s cannot be read yet (attempt %d): %s", *names(delivery), one_line(error), extra=extra)
        return Ending.RETRY
    until = "this was its last attempt" if last else "its grace is over"
    extra = log_fields.of_attempt(delivery, Ending.DEAD, reason="unreadable", error=str(error))
    said = *names(delivery), until, one_line(error)
    log.error("Task %s in %s cannot be read (attempt %d), and %s: %s", *said, extra=extra)
    verified = not isinstance(error, UnknownKeyError | UnknownVersionError)
    _keep_unread(body, delivery, error, config, reason="unreadable", verified=verified)
    return Ending.DEAD


def _keep_unread(
    body: bytes,
    delivery: Delivery,
    error: DecodeError | NotYetReadableError,
    config: Config,
    *,
    reason: str,
    verified: bool,
) -> None:
    if error.kept is not None:
        record, store = error.kept
        dead_letters.make_dead(record, store, delivery, error, reason=reason)
    else:
        dead_letters.keep_body(body, delivery, error, config, reason=reason, verified=verified)
