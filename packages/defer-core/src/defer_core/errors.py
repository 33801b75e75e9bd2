"""Every error of defer, in one place: one base, the docstring as the default message, the context as attributes."""

from __future__ import annotations

import inspect
from typing import Any


class DeferError(Exception):
    """Something went wrong in defer."""

    def __init__(self, message: str | None = None, **context: Any) -> None:
        super().__init__(message or " ".join((inspect.getdoc(type(self)) or "").split()))
        for name, value in context.items():
            setattr(self, name, value)


# --- said at start-up -------------------------------------------------------------------------------------------------


class ConfigError(DeferError):
    """The configuration of defer is missing or contradicts itself."""


# --- said by defer(), before anything is written ----------------------------------------------------------------------


class OptionError(DeferError, TypeError):
    """An option of defer() is unknown, of the wrong type or out of range."""


class UnserializableError(DeferError, TypeError):
    """A value cannot travel in a task. `path` says where it is: `kwargs['user'].avatar`."""

    path: str = ""


class CallableError(DeferError, TypeError):
    """The callable cannot travel: only what can be imported again by module and qualified name can be deferred."""


class TaskTooLargeError(DeferError, ValueError):
    """A task with `_small_task=True` is larger than the inline limit:
    leave `_small_task` out, so that it can be stored."""

    size: int = 0
    limit: int = 0


class PayloadTooLargeError(DeferError, ValueError):
    """The call is larger than a store may keep: store the data yourself and defer its key."""

    size: int = 0
    limit: int = 0


class NotInTransactionError(DeferError):
    """`_transactional=True` needs a surrounding transaction, and there is none."""


# --- said by a transport ----------------------------------------------------------------------------------------------


class TransportError(DeferError):
    """The queue did not take the task."""


class TaskAlreadyExistsError(TransportError):
    """A task of this name is in the queue, or was not long ago."""


class TransportRefusedError(TransportError):
    """The queue answered that it will not take this task: sending it again as it is will not help."""


class QueueNotFoundError(TransportRefusedError):
    """The queue does not exist."""


class TaskSizeRefusedError(TransportRefusedError):
    """The service says that the task is too large, whatever our own limit was."""


class TransportUnavailableError(TransportError):
    """The queue is unavailable; the task was certainly not taken."""


class AmbiguousSendError(TransportError):
    """No answer came from the queue: it may have taken the task or not."""


class BulkSendError(TransportError):
    """The queue refused some of the tasks of `defer_many`.
    `failures` has their errors by index, `handles` the others."""

    failures: dict[int, TransportError]
    handles: list[Any]


# --- said by the run path ---------------------------------------------------------------------------------------------


class PermanentTaskFailure(DeferError):
    """The task can never succeed: it is not retried, and is kept as a dead letter."""


class SingularTaskFailure(DeferError):
    """The task failed this once: it is retried without an error being logged."""


class DecodeError(DeferError):
    """The body of the task cannot be read, now or ever."""

    reason = "unreadable"


class ExpiredError(DecodeError):
    """The task was not run before it expired."""

    reason = "expired"


class CallableForbiddenError(CallableError, DecodeError):
    """The callable is one that this project refuses to defer or to run."""

    name: str = ""


class SignatureError(DecodeError):
    """The body of the task is not signed, or its signature is wrong."""

    reason = "unverified"


class NotYetReadableError(DeferError):
    """The body cannot be read by this process: another release or another key may be able to (a rolling deploy)."""


class UnknownKeyError(NotYetReadableError):
    """The body is signed with a key that is not among the configured ones."""


class UnknownVersionError(NotYetReadableError):
    """The envelope is of a version that this release does not know."""


class CallableNotFoundError(NotYetReadableError):
    """The callable of the task does not resolve in this process."""


class UnknownTypeError(NotYetReadableError):
    """A value of the task is of a type that this process does not know, or cannot make again."""


class StoreNotConfiguredError(NotYetReadableError):
    """The task's payload is in a store that this process has no configuration for."""
