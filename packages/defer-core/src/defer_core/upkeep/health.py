"""Whether the service is healthy, for uptime checks: cheap to ask, and nothing of what tasks hold is in the answer."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from .. import clock
from ..config import Config, current
from ..stores.base import TaskStore
from ..text import one_line

log = logging.getLogger("defer")

DAY = 86400.0


@dataclass(frozen=True, kw_only=True)
class Health:
    """Whether the service is healthy, and why not."""

    reasons: tuple[str, ...] = ()
    """What is wrong, a sentence each; none in a healthy service."""

    @property
    def healthy(self) -> bool:
        """True if nothing is wrong."""
        return not self.reasons

    @property
    def status(self) -> int:
        """The HTTP status that says so: 200 or 503."""
        return 200 if self.healthy else 503

    def to_json(self) -> str:
        """Return the JSON object with `healthy` and `reasons`."""
        return json.dumps({"healthy": self.healthy, "reasons": self.reasons})


def health(*, late: float | None = None, dead: int | None = None) -> Health:
    """Look at every configured store, and at the queues if the transport has them. `late` is for how many seconds the
    oldest record of a store may wait to be sent, and a task that is due for somebody who delivers; `dead` how many dead
    letters of the last 24 hours a store may have; by default the settings `health_late` and `health_dead`. Never
    raises: a store that cannot be read is a reason."""
    try:
        config = current()
        stores = config.every_store()
    except Exception as error:
        return Health(reasons=(_cannot("The configuration cannot be used", error),))
    if not stores and config.transport is None:
        return Health(reasons=("defer is not configured.",))
    late = config.health_late if late is None else late
    dead = config.health_dead if dead is None else dead
    of_stores = [reason for store in stores for reason in _looked_at(store, late, dead)]
    return Health(reasons=(*of_stores, *_of_queues(config, late)))


def _looked_at(store: TaskStore, late: float, dead: int) -> Iterator[str]:
    where = f"The store {f'{store.name} {store.alias}'.strip()}"
    try:
        oldest, letters = store.oldest_pending(), store.count_dead(clock.now() - DAY)
    except Exception as error:
        yield _cannot(f"{where} cannot be read", error)
        return
    waits = 0.0 if oldest is None else clock.now() - oldest
    if waits > late:
        yield f"{where} has had a record to be sent for {waits:.0f} s: its queue refuses, or no sweep runs."
    if letters > dead:
        yield f"{where} has {letters} dead letter{'s' if letters > 1 else ''} of the last 24 hours."


def _of_queues(config: Config, late: float) -> Iterator[str]:
    if config.transport is None:
        return
    try:
        states = config.the_transport.queue_states()
    except Exception as error:
        yield _cannot("The queues cannot be asked", error)
        return
    for each in states:
        if each.state == "undelivered" and each.waits is not None and each.waits > late:
            waits = f"has had a task that is due for {each.waits:.0f} s"
            yield f"The queue {one_line(each.name)} {waits}, and nobody delivers: start its dispatcher."


def _cannot(what: str, error: Exception) -> str:
    """Log an error, and return the reason without its text, which may have addresses and credentials."""
    log.error("%s: %s", what, one_line(repr(error)))
    return f"{what}: {type(error).__name__}."
