"""A call that is to happen later, before it is serialised."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from .nouns import fast_init


@dataclass(frozen=True, kw_only=True)
class RetryOptions:
    """How the queue repeats a failing task; None leaves a setting to the queue."""

    max_attempts: int | None = None
    """How often the task is attempted in all (at least 1); -1 is without limit."""
    max_retry_duration: float | None = None
    """Seconds since the first attempt after which the queue gives up."""
    min_backoff: float | None = None
    """Seconds before the first repetition."""
    max_backoff: float | None = None
    """Seconds that the wait between repetitions grows to."""
    max_doublings: int | None = None
    """How often the wait doubles before it grows linearly."""


@fast_init
@dataclass(frozen=True, kw_only=True)
class Routing:
    """Where and when a task goes: all that a transport needs besides the body."""

    queue: str = "default"
    """The queue's short name."""
    name: str | None = None
    """The task's short name; None lets the queue choose one."""
    eta: float | None = None
    """When to run, in seconds since the epoch; None is now."""
    url: str | None = None
    """A path (App Engine) or an absolute URL (HTTP) to post to; None is the configured one."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Further headers of the request, which may be credentials."""
    service: str | None = None
    """App Engine service; None is the transport's default."""
    version: str | None = None
    """App Engine version."""
    instance: str | None = None
    """App Engine instance."""
    retry: RetryOptions | None = None
    """How to repeat a failing task."""
    dispatch_deadline: float | None = None
    """Seconds that one attempt may take."""

    def to_json(self) -> str:
        """Return the JSON object that stores keep: of what is set."""
        return json.dumps({key: value for key, value in asdict(self).items() if value is not None})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the Routing that `to_json` was called on."""
        fields = json.loads(text)
        if "retry" in fields:
            fields["retry"] = RetryOptions(**fields["retry"])
        return cls(**fields)


@fast_init
@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """The underscored keywords of `defer()`, parsed."""

    routing: Routing = field(default_factory=Routing)
    """Where and when the task goes."""
    transactional: bool | None = None
    """True and False as given; None follows the surrounding transaction."""
    using: str | None = None
    """The database alias whose transaction the task belongs to."""
    small: bool = False
    """True if the caller says that the task fits inline, so that it needs no record."""
    wipe_related_caches: bool = True
    """True to leave the relation caches of Django instances behind."""
    idempotent: bool = False
    """True if a second run does no harm, so that a doubtful send may always be repeated (tasks of iterations)."""


@fast_init
@dataclass(frozen=True, kw_only=True)
class Task:
    """A callable, its arguments and its options."""

    func: Callable[..., Any]
    """What to call."""
    args: tuple[Any, ...] = ()
    """Its positional arguments."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Its keyword arguments, without the options."""
    options: TaskOptions = field(default_factory=TaskOptions)
    """How to send it."""
