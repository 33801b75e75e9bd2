"""What iterations raise."""

from __future__ import annotations

from defer_core.errors import DeferError, OptionError, SingularTaskFailure


class TimeoutException(Exception):
    """Raised by a callback to hand over: the shard goes on from this row in a new task, and it counts as no attempt."""


class IterationRefusedError(OptionError):
    """The queryset, or an option, cannot be iterated as asked: said at the call, before anything is written."""


class FenceLostError(SingularTaskFailure):
    """A newer attempt, or a newer generation, of this shard has begun: what this one did since its last checkpoint is void."""


class HeldError(DeferError):
    """The iteration cannot go on until a person has mended something; its reason says what."""


class UnknownIterationError(DeferError, LookupError):
    """There is no such iteration: it is over and its marker was deleted, or it never was."""
