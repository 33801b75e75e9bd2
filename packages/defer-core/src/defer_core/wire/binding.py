"""Tasks for one queue alone: a body that is signed for it is refused in another (`bind_queue`)."""

from __future__ import annotations

from ..config import Config
from ..delivery import Delivery
from ..errors import WrongQueueError
from ..text import one_line
from .envelope import Envelope

HEADER = "defer-queue"
"""The key in an envelope's `trace` whose value is the queue that it was signed for. Releases that do not know the key
ignore it."""


def outgoing(queue: str, config: Config) -> dict[str, str]:
    """Return the entry of `trace` that binds a task to its queue; empty unless `bind_queue` is set."""
    return {HEADER: queue} if config.bind_queue else {}


def check(sealed: Envelope, delivery: Delivery, config: Config) -> None:
    """Raise WrongQueueError for a task of another queue. A task that was sent before `bind_queue` was set passes, and
    so does any task under Google's own handler when it does not say which queue it serves."""
    bound = sealed.trace.get(HEADER) if config.bind_queue else None
    if bound is None or bound == delivery.queue or (not delivery.queue and delivery.target == "google"):
        return
    queue = delivery.queue or "one that does not say its name"
    raise WrongQueueError(f"The task was signed for the queue {one_line(bound)} and came through {one_line(queue)}.")
