"""Every error of defer: one base, the docstring as the default message, the context as attributes."""

from __future__ import annotations

import inspect
from typing import Any

from .text import one_line

LONGEST = 1000
"""Characters of a message that quotes a body."""


class DeferError(Exception):
    """Something went wrong in defer."""

    def __init__(self, message: str | None = None, **context: Any) -> None:
        super().__init__(message or " ".join((inspect.getdoc(type(self)) or "").split()))
        for name, value in context.items():
            setattr(self, name, value)


# --- said at start-up -------------------------------------------------------------------------------------------------


class ConfigError(DeferError):
    """The configuration of defer is missing or contradicts itself."""


class MissingExtraError(ConfigError, ImportError):
    """A library that the configuration needs is not installed."""


# --- said by defer(), before anything is written ----------------------------------------------------------------------


class OptionError(DeferError, TypeError):
    """An option of defer() is unknown, of the wrong type or out of range."""


class UnserializableError(DeferError, TypeError):
    """A value cannot travel in a task. `path` says where it is: `kwargs['user'].avatar`."""

    path: str = ""


class UnreadableError(UnserializableError):
    """It can be pickled, but its pickle cannot be read again."""


class RefersBackError(UnserializableError):
    """It contains itself."""

    value: Any = None


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
    """The queue refused this task: sending it again unchanged will not help."""


class QueueNotFoundError(TransportRefusedError):
    """The queue does not exist."""


class TaskSizeRefusedError(TransportRefusedError):
    """The service found the task too large, whatever our own limit was."""


class TransportUnavailableError(TransportError):
    """The queue is unavailable, and certainly did not take the task."""


class AmbiguousSendError(TransportError):
    """The queue gave no answer: it may have taken the task or not."""


class BulkSendError(TransportError):
    """The queue refused some of the tasks of `defer_many`.
    `failures` has their errors by index, `handles` the others."""

    failures: dict[int, TransportError | TaskTooLargeError]
    handles: list[Any]


# --- said by the run path ---------------------------------------------------------------------------------------------


class PermanentTaskFailure(DeferError):
    """The task can never succeed: it is not retried, and is kept as a dead letter."""


class SingularTaskFailure(DeferError):
    """The task failed this once: it is retried without an error being logged."""


class TaskExitedError(DeferError):
    """The task called `sys.exit()`, which would have ended the server with it."""


class _BodyError(DeferError):
    """Something is wrong with the body of a task. A message that quotes the body stays in one line."""

    def __init__(self, message: str | None = None, **context: Any) -> None:
        super().__init__(message and one_line(message, LONGEST), **context)


class DecodeError(_BodyError):
    """The body of the task cannot be read, now or ever."""

    reason = "unreadable"
    kept: Any = None
    """The record of its stored payload, and the store, if it has one."""


class ExpiredError(DecodeError):
    """The task was not run before it expired."""

    reason = "expired"


class WrongQueueError(DecodeError):
    """The task came through another queue than the one that it was signed for."""

    reason = "wrong queue"


class CallableForbiddenError(CallableError, DecodeError):
    """This project refuses to defer or run the callable."""

    name: str = ""


class SignatureError(DecodeError):
    """The body of the task is not signed, or its signature is wrong."""

    reason = "unverified"


class NotYetReadableError(_BodyError):
    """This process cannot read the body: another release or another key may be able to (a rolling deploy)."""

    kept: Any = None
    """The record of its stored payload, and the store, if it has one."""


class UnknownKeyError(NotYetReadableError):
    """The body is signed with a key that is not among the configured ones."""


class UnknownVersionError(NotYetReadableError):
    """This release does not know the version of the envelope."""


class CallableNotFoundError(NotYetReadableError):
    """The callable of the task does not resolve in this process."""


class UnknownTypeError(NotYetReadableError):
    """This process does not know the type of a value of the task, or cannot make the value again."""


class StoreNotConfiguredError(NotYetReadableError):
    """The task's payload is in a store that is not configured in this process."""
