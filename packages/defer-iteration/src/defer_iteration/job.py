"""What an iteration is to do, and how that travels in its row."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from defer_core import clock, codec
from defer_core.config import current
from defer_core.delivery import current_delivery
from defer_core.errors import (
    CallableError,
    CallableForbiddenError,
    DecodeError,
    NotYetReadableError,
    SingularTaskFailure,
    UnserializableError,
)

from . import querysets
from .base import IterationStore
from .errors import HeldError
from .iteration import Iteration, IterationOptions, IterationState
from .rows import Rows

log = logging.getLogger("defer")

KeyRangesGetter = Callable[[Any, int], Any]
"""Djangae's signature: a queryset and a number of shards to `(start, end)` pairs."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """The rows, and what to call."""

    source: Any
    """A queryset, or a function at the top of a module that returns a queryset or Rows."""
    callback: Callable[..., Any]
    """Called as `callback(row, *args, **kwargs)`."""
    finalize: Callable[..., Any]
    """Called as `finalize(*args, **kwargs)` once every shard is done."""
    args: tuple[Any, ...] = ()
    """Positional arguments of both."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of both."""
    key_ranges_getter: KeyRangesGetter | None = None
    """What divides the rows, where the caller knows better."""

    @property
    def call(self) -> Callable[[Any], Any]:
        """The callback with its further arguments, to be called with a row."""
        callback, args, kwargs = self.callback, self.args, self.kwargs
        return (lambda row: callback(row, *args, **kwargs)) if args or kwargs else callback


_PARTS = ("queryset", "callback", "finalize", "args", "kwargs", "key_ranges_getter")
"""What the members of a packed job are to the caller."""


def pack(job: Job) -> bytes:
    """The bytes of a job. Raises UnserializableError or CallableForbiddenError, whose path begins with `args[…]`,
    `kwargs[…]` or the name of another argument."""
    source = job.source if callable(job.source) else querysets.pack(job.source)
    try:
        return codec.pack(
            [source, job.callback, job.finalize, tuple(job.args), dict(job.kwargs), job.key_ranges_getter]
        )
    except (UnserializableError, CallableForbiddenError) as error:
        path: str = getattr(error, "path", "")
        if not path.startswith("["):
            raise
        name, start = _PARTS[int(path[1])], len("[0]")
        raise type(error)(name + str(error)[start:], path=name + path[start:]) from error


def unpack(packed: bytes) -> Job:
    """The job again. Raises DecodeError, NotYetReadableError or HeldError."""
    source, callback, finalize, args, kwargs, getter = codec.unpack(packed)
    source = source if callable(source) else querysets.unpack(source)
    return Job(source=source, callback=callback, finalize=finalize, args=args, kwargs=kwargs, key_ranges_getter=getter)


def rows_of(job: Job, options: IterationOptions) -> Rows:
    """The rows of a job, in the order asked for."""
    source = job.source() if callable(job.source) else job.source
    if isinstance(source, Rows):
        return source
    from .queryset_rows import rows_over  # with Django set up, which Rows can do without

    return rows_over(querysets.checked(source), options.order_field, job.key_ranges_getter)


def opened(store: IterationStore, iteration: Iteration) -> Job | None:
    """The job of an iteration; None where it cannot be read, and the iteration is held with the reason. What another
    release may be able to read is retried for the grace first. Raises SingularTaskFailure."""
    try:
        return unpack(iteration.job)
    except NotYetReadableError as error:
        if _is_young(iteration):
            raise SingularTaskFailure(f"Iteration {iteration.id} cannot be read yet: {error}") from error
        hold(store, iteration, str(error))
    except (DecodeError, CallableError, HeldError) as error:
        hold(store, iteration, str(error))
    return None


def _is_young(iteration: Iteration) -> bool:
    delivery = current_delivery()
    since = max(iteration.created, (delivery.eta if delivery else None) or 0.0)
    return clock.now() - since <= current().grace


def hold(store: IterationStore, iteration: Iteration, reason: str) -> None:
    """Let an iteration stand still until a person has mended something."""
    live = (IterationState.NEW, IterationState.RUNNING, IterationState.FINALIZING)
    held = store.transact(lambda: store.control(iteration.id, IterationState.HELD, when=live, reason=reason))
    if held is not None:
        log.error("Iteration %s (%s) is held: %s", iteration.id, iteration.label, reason)
