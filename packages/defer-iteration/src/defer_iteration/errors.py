"""What iterations raise."""

from __future__ import annotations

from defer_core import clock
from defer_core.errors import DeferError, OptionError, SingularTaskFailure


class TimeoutException(Exception):
    """Raised by a callback to hand over: the shard goes on from this row in a new task, and it counts as no attempt.

    `countdown` is how many seconds from now; None is at once. It may be given alone, too; anything else is a message.
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
    """The queryset, or an option, cannot be iterated as asked: said at the call, before anything is written. What only
    a task can find out (the ranges of a `key_ranges_getter`, a function that returns another queryset by then) holds
    the iteration."""


class FenceLostError(SingularTaskFailure):
    """A newer attempt, or a newer generation, of this shard has begun: what this one did since its last checkpoint
    is void."""


class SpoiltTransactionError(DeferError):
    """The callback has swallowed a database error, after which the transaction of its page cannot be used: let what
    may fail run in an `atomic` block of its own."""


class HeldError(DeferError):
    """The iteration cannot go on until a person has mended something; its reason says what."""


class UnknownIterationError(DeferError, LookupError):
    """There is no such iteration: it is over and its marker was deleted, or it never was."""
