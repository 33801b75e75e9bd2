"""The seam behind which tasks are sent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from ..errors import TransportError
from ..nouns import fast_init
from ..task import RetryOptions, Routing


@fast_init
@dataclass(frozen=True, kw_only=True)
class Message:
    """A task for a queue."""

    body: bytes
    """The framed envelope."""
    routing: Routing = field(default_factory=Routing)
    """Where and when it goes."""


@dataclass(frozen=True, kw_only=True)
class QueueState:
    """What is known of a queue."""

    name: str
    """Its short name."""
    state: str = ""
    """`running`, `paused`, `disabled`; `undelivered` if tasks are due and nobody delivers any; `unknown` where it could
    not be asked, empty where a queue has no state."""
    tasks: int | None = None
    """How many tasks it has, those that are running among them; None if it does not say."""
    due: int | None = None
    """How many of them are due, and wait to be run."""
    running: int | None = None
    """How many of them are running."""
    waits: float | None = None
    """For how many seconds the one that has been due for the longest has waited; None if none is due."""
    error: str = ""
    """Why it could not be asked."""


class Transport(ABC):
    """Hands messages to a queue."""

    name: ClassVar[str]
    """The name of this kind of transport in the configuration."""
    supports_names: ClassVar[bool] = True
    """True if a second task of the same name is refused."""
    supports_transactions: ClassVar[bool] = False
    """True if a task can be added natively in the caller's transaction (the bundled Task Queue)."""
    max_body: ClassVar[int] = 1_000_000
    """Bytes of body that the service takes at most, whatever `inline_limit` says."""
    runs_tasks: bool = False
    """True if a task runs in the call of `send`, whose exception is the task's."""
    default_authenticator: ClassVar[str | None] = None
    """The authenticator that the handler uses with this transport if the configuration names none."""

    def check(self, routing: Routing) -> None:  # noqa: B027 (most transports take what the options let through)
        """Raise the TransportRefusedError that `send` would, before a record of the task is written."""

    @abstractmethod
    def send(self, message: Message) -> str:
        """Hand one task to the queue and return its short name. Raises TaskAlreadyExistsError, TransportRefusedError,
        TransportUnavailableError (certainly not taken) or AmbiguousSendError (perhaps taken)."""

    def send_many(self, messages: Sequence[Message]) -> list[str | TransportError]:
        """Hand over many; return the answers by index, each a name or the error that `send` would have raised."""
        answers: list[str | TransportError] = []
        for message in messages:
            try:
                answers.append(self.send(message))
            except TransportError as error:
                answers.append(error)
        return answers

    def retry_of(self, queue: str) -> RetryOptions | None:
        """Return how a queue repeats a failing task, if this transport knows that for certain, else None."""
        return None

    def queue_states(self) -> Sequence[QueueState]:
        """Return what is known of the queues that have been used; nothing, if that takes the answer of a service."""
        return ()

    def in_transaction(self) -> bool:
        """Return True if the caller is in a transaction that this transport can join natively."""
        return False

    def send_in_transaction(self, message: Message) -> str:
        """Add a task that exists only if the surrounding transaction commits (needs `supports_transactions`)."""
        raise NotImplementedError(f"{type(self).__name__} has no transactions")

    def close(self) -> None:  # noqa: B027 (most transports have nothing to close)
        """Close connections."""
