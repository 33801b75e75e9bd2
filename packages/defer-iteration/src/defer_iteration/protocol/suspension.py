"""What becomes of a task that fails outside a row: its error is recorded, and the iteration is suspended if only a
person can mend the cause."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from defer_core import current_delivery
from defer_core.errors import CallableError, DecodeError, NotYetReadableError, SingularTaskFailure
from defer_core.spi import clock, current, failure_of, storable, traceback_of

from ..errors import FenceLostError, HeldError, IterationRefusedError
from ..model.iteration import Iteration, IterationState
from ..model.shard import Shard
from ..model.transitions import LIVE
from ..stores.base import IterationStore
from . import news
from .job import Job, unpack
from .scheduler import Scheduler

log = logging.getLogger("defer")


def suspend(scheduler: Scheduler, iteration: Iteration, reason: str) -> None:
    """Move an iteration to `held`, with the reason, until a person has mended the cause and resumes it."""
    reason = storable(reason)
    if stop(scheduler, iteration, IterationState.HELD, when=LIVE, reason=reason):
        news.held(iteration, reason)


def stop(
    scheduler: Scheduler, iteration: Iteration, to: IterationState, *, when: Sequence[IterationState], reason: str
) -> bool:
    """Move an iteration to `held` or `failed`, and enqueue the news of it, in one transaction. Return False if it is in
    none of the states `when`."""
    store = scheduler.store

    def move() -> bool:
        before = store.control(iteration.id, to, when=when, reason=reason)
        if before is not None and before.options.on_failed:
            scheduler.enqueue_failed(before)
        return before is not None

    return store.transact(move)


@contextmanager
def suspending(scheduler: Scheduler, iteration: Iteration) -> Iterator[None]:
    """Suspend the iteration if the `with` block finds that it cannot go on."""
    try:
        yield
    except (HeldError, IterationRefusedError) as error:
        suspend(scheduler, iteration, str(error))


@contextmanager
def recording_errors(store: IterationStore, attempt: Iteration | Shard) -> Iterator[None]:
    """Record what the `with` block raises as the last error of the iteration or the shard, unless the attempt was
    taken over."""
    try:
        yield
    except FenceLostError:
        raise
    except (Exception, SystemExit) as error:
        _record_error(store, attempt, traceback_of(failure_of(error)))
        raise


def _record_error(store: IterationStore, attempt: Iteration | Shard, error: str) -> None:
    """Record an error, or log why that failed: what the attempt itself has raised must not be lost by it."""
    try:
        store.reconnect()
        store.transact(lambda: store.record_error(attempt, error))
    except Exception:
        what = attempt.id if isinstance(attempt, Iteration) else f"{attempt.iteration_id}, shard {attempt.index}"
        log.exception("Iteration %s: the error of an attempt could not be recorded.", what)


def decode_job(scheduler: Scheduler, iteration: Iteration) -> Job | None:
    """Return the job of an iteration; if it cannot be decoded, suspend the iteration and return None.

    Raise SingularTaskFailure, to be retried, while another release of the site may still be able to decode it."""
    try:
        return unpack(iteration.job)
    except NotYetReadableError as error:
        if _is_young(iteration):
            raise SingularTaskFailure(
                f"Iteration {iteration.id} ({iteration.label}) cannot be decoded yet: {error}"
            ) from error
        suspend(scheduler, iteration, str(error))
    except (DecodeError, CallableError, HeldError) as error:
        suspend(scheduler, iteration, str(error))
    return None


def _is_young(iteration: Iteration) -> bool:
    delivery = current_delivery()
    since = max(iteration.created, (delivery.eta if delivery else None) or 0.0)
    return clock.now() - since <= current().grace
