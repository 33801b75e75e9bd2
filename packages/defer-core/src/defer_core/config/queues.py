"""The queues that a project declares."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..errors import ConfigError
from ..task import RetryOptions
from .active import nearest
from .model import Config

QUEUE = re.compile(r"[A-Za-z0-9-]{1,100}\Z")
"""A queue's short name."""
MAX_ATTEMPTS = 100
"""Attempts after which a queue of Cloud Tasks gives up by default."""


@dataclass(frozen=True, kw_only=True)
class QueueSettings:
    """A declared queue; None leaves a setting to Cloud Tasks."""

    name: str
    """Its short name."""
    rate_per_second: float | None = None
    """Tasks that are dispatched in a second, at most."""
    rate_max_concurrent: int | None = None
    """Tasks that run at a time, at most."""
    retry_max_attempts: int | None = None
    """How often a task is attempted in all; -1 is without limit."""
    retry_max_duration: float | None = None
    """Seconds since the first attempt after which the queue gives up."""
    retry_min_backoff: float | None = None
    """Seconds before the first repetition."""
    retry_max_backoff: float | None = None
    """Seconds that the wait between repetitions grows to."""
    retry_max_doublings: int | None = None
    """How often the wait doubles before it grows linearly."""

    @property
    def retry(self) -> RetryOptions:
        """Retry options of the queue, as far as they are declared, else those of Cloud Tasks."""
        return RetryOptions(
            max_attempts=self.retry_max_attempts or MAX_ATTEMPTS,
            max_retry_duration=self.retry_max_duration,
            min_backoff=self.retry_min_backoff,
            max_backoff=self.retry_max_backoff,
            max_doublings=self.retry_max_doublings,
        )


def declared(config: Config) -> dict[str, QueueSettings]:
    """Return the queues of the setting `queues`, by name. Raises ConfigError naming the entry."""
    return {queue.name: queue for queue in map(parse, config.queues)}


def parse(entry: str | Mapping[str, Any]) -> QueueSettings:
    """Return a queue from its name, or from a mapping of settings. Raises ConfigError."""
    if not isinstance(entry, str | Mapping):
        raise ConfigError(f"`queues` has the entry {entry!r}: give a queue's name, or a dict with `name`.")
    given: dict[str, Any] = {"name": entry} if isinstance(entry, str) else dict(entry)
    known = {each.name for each in fields(QueueSettings)}
    for key in given:
        if key not in known:
            raise ConfigError(f"The queue {given.get('name')!r} has no setting {key!r}{nearest(key, known)}.")
    name = given.get("name")
    if not isinstance(name, str) or not QUEUE.match(name):
        raise ConfigError(
            f"`queues` has an entry named {name!r}: give the queue's short name, of letters, digits and hyphens."
        )
    for key, value in given.items():
        if key != "name" and value is not None:
            given[key] = number(value)
            if given[key] is None:
                raise ConfigError(f"{key} of the queue {name!r} is {value!r}: give a number.")
    return QueueSettings(**given)


def number(value: Any) -> float | None:
    """Return a number, also from its text (as in Djangae's documentation); None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    return int(found) if found.is_integer() else found
