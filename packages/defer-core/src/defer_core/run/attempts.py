"""The news that an attempt has ended, for whoever counts, logs or measures attempts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..delivery import Delivery, Ending
from ..logs import logger
from ..nouns import fast_init
from ..telemetry import metrics, spans
from ..wire.decoded import DecodedTask

log = logger("defer")


@fast_init
@dataclass(frozen=True, kw_only=True)
class Attempt:
    """An attempt that has ended."""

    delivery: Delivery
    """The attempt itself: its task's name, its queue, its number."""
    ending: Ending
    """How it has ended."""
    label: str = ""
    """The name of the callable, for people: `shop.tasks:ship`. Empty if the body could not be read."""
    due: float | None = None
    """When it was due, in seconds since the epoch: the ETA, else when it was deferred; None if neither is known."""
    duration: float = 0.0
    """Seconds that the call took; 0.0 if nothing was called."""
    error: BaseException | None = None
    """What was raised, or why the body cannot be read."""


Observer = Callable[[Attempt], object]
"""Is told of each attempt, in its process and thread, before the queue gets its answer: it must be quick."""
_observers: dict[str, Observer] = {}


def register_observer(name: str, observer: Observer) -> None:
    """Tell `observer` of each attempt that ends; a later one of the same name replaces it. What it raises is logged."""
    _observers[name] = observer


def ended(
    delivery: Delivery,
    ending: Ending,
    *,
    task: DecodedTask | None = None,
    duration: float = 0.0,
    error: BaseException | None = None,
    span: Any = None,
) -> None:
    """Tell the observers, if there are any, and OpenTelemetry, that an attempt has ended. Never raises."""
    failure = error if ending in (Ending.FAILED, Ending.DEAD) else None
    if span is not None:
        spans.ended(span, ending, failure)
    if not (_observers or metrics.is_loaded()):
        return
    attempt = Attempt(
        delivery=delivery,
        ending=ending,
        label="" if task is None else task.label,
        due=delivery.eta or (task and task.sealed.created) or None,
        duration=duration,
        error=error,
    )
    metrics.attempted(delivery.queue, attempt.label, ending, duration=duration, delay=_delay(attempt), error=failure)
    for name, observer in tuple(_observers.items()):
        try:
            observer(attempt)
        except Exception:
            log.exception("The observer %r failed at an attempt that has ended (%s).", name, ending)


def _delay(attempt: Attempt) -> float | None:
    """Return the seconds from when a task was due to its first attempt, None at another attempt."""
    if attempt.due is None or attempt.delivery.retry_count != 0:
        return None
    return max(0.0, attempt.delivery.started - attempt.due)
