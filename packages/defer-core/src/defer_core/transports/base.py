"""The seam behind which tasks are sent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from ..errors import TransportError
from ..task import Routing


@dataclass(frozen=True, kw_only=True)
class Message:
    """A task as a queue gets it."""

    body: bytes
    """The framed envelope."""
    routing: Routing = field(default_factory=Routing)
    """Where and when it goes."""


class Transport(ABC):
    """Hands messages to a queue."""

    name: ClassVar[str]
    """What configuration calls this kind of transport."""
    supports_names: ClassVar[bool] = True
    """Whether a second task of the same name is refused."""
    supports_eta: ClassVar[bool] = True
    """Whether a task can be kept until it is due."""
    supports_transactions: ClassVar[bool] = False
    """Whether a task can be added natively in the caller's transaction (the bundled Task Queue)."""
    max_body: ClassVar[int] = 1_000_000
    """Bytes of body that the service takes at the most, whatever `inline_limit` says."""
    default_door: ClassVar[str | None] = None
    """The door of the handler that belongs to this transport, where the configuration names none."""

    def check(self, routing: Routing) -> None:  # noqa: B027 (most transports take what the options let through)
        """Raises the TransportRefusedError that `send` would, before a record of the task is written."""

    @abstractmethod
    def send(self, message: Message) -> str:
        """Hand one task to the queue and return its short name. Raises TaskAlreadyExistsError, TransportRefusedError,
        TransportUnavailableError (certainly not taken) or AmbiguousSendError (perhaps taken)."""

    def send_many(self, messages: Sequence[Message]) -> list[str | TransportError]:
        """Hand over many; the answers by index, each a name or the error that `send` would have raised."""
        answers: list[str | TransportError] = []
        for message in messages:
            try:
                answers.append(self.send(message))
            except TransportError as error:
                answers.append(error)
        return answers

    def in_transaction(self) -> bool:
        """Whether the caller is in a transaction that this transport can join natively."""
        return False

    def send_in_transaction(self, message: Message) -> str:
        """Add a task that exists only if the surrounding transaction commits (needs `supports_transactions`)."""
        raise NotImplementedError(f"{type(self).__name__} has no transactions")

    def close(self) -> None:  # noqa: B027 (most transports hold nothing)
        """Let go of connections."""
