"""What iterations raise."""

from __future__ import annotations

from defer_core.errors import DeferError, OptionError, SingularTaskFailure
from defer_core.spi import clock


class TimeoutException(Exception):
    """Raised by a callback to hand over: the shard goes on from this row in a new task, and no attempt is counted.

    `countdown` is in how many seconds; None is at once. It may also be the only argument; anything else is a message.
    """

    def __init__(self, *args: object, countdown: float | None = None) -> None:
        super().__init__(*args)
        match args:
            case [int() | float() as seconds] if countdown is None:
                countdown = seconds
        self.countdown = countdown

    @property
    def eta(self) -> float | None:
        """When the new task is due, in seconds since the epoch."""
        return None if self.countdown is None else clock.now() + self.countdown


class IterationRefusedError(OptionError):
    """The queryset cannot be iterated with these options. It is raised by the call, before anything is written. If only
    a task can find out (the ranges of a `key_ranges_getter`, a function that returns another queryset by then), the
    iteration is held."""


class FenceLostError(SingularTaskFailure):
    """A newer attempt has taken over this shard or plan: what this one did since its last checkpoint is void."""


class SpoiltTransactionError(DeferError):
    """The callback has swallowed a database error, after which the transaction of its page is unusable: run what may
    fail in an `atomic` block of its own."""


class HeldError(DeferError):
    """The iteration cannot go on until a person has mended the cause, which is its reason."""


class UnknownIterationError(DeferError, LookupError):
    """There is no such iteration: it is over and its marker was deleted, or it never existed."""
