"""The seam behind which a request proves that it comes from a queue."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from defer_core.errors import DeferError

from ..request import Request


class AuthenticatorUnavailableError(DeferError):
    """The authenticator cannot decide now: the queue must send the task again."""


class Authenticator(ABC):
    """Accepts the requests of one kind of queue. Its keyword arguments are `authenticator_options[name]`."""

    name: ClassVar[str] = ""
    """Its name in the configuration."""
    target: ClassVar[str] = ""
    """The `target` of its Deliveries; if empty, the headers decide."""
    require_signature: ClassVar[bool] = False
    """True if the request proves too little, so that only a signed task may run."""

    @abstractmethod
    def accepts(self, request: Request) -> bool:
        """Decide without reading the body. Raises AuthenticatorUnavailableError."""

    def refusal(self, request: Request) -> str | None:
        """Return why the request is refused, without any secret or token, else None.

        The log has the whole text; the caller is told what precedes its first parenthesis. Raises
        AuthenticatorUnavailableError.
        """
        return None if self.accepts(request) else "not accepted"


class ExplainingAuthenticator(Authenticator):
    """An authenticator that gives its reasons."""

    def accepts(self, request: Request) -> bool:
        return self.refusal(request) is None

    @abstractmethod
    def refusal(self, request: Request) -> str | None:
        """See `Authenticator.refusal`."""
