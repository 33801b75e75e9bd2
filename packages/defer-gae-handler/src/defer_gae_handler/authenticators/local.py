"""The secret of the local queue: it lies in the queue's file, and the dispatcher sends it."""

from __future__ import annotations

import hmac
from typing import ClassVar

from defer_core.errors import ConfigError
from defer_core.spi import LOCAL_SECRET, Config, current, refuse_on_google_cloud

from ..request import Request
from .base import ExplainingAuthenticator


class LocalSecret(ExplainingAuthenticator):
    """Accepts the secret of the local queue: `secret`, else the configured transport's, else the default queue's."""

    name: ClassVar[str] = "local"
    target: ClassVar[str] = "local"

    def __init__(self, *, secret: str | None = None) -> None:
        refuse_on_google_cloud("The local queue's authenticator")
        self._given = secret
        self._secret = _secret_of_the_queue() if secret is None else secret
        if not self._secret:
            raise ConfigError("The secret of the authenticator 'local' is empty.")

    def refusal(self, request: Request) -> str | None:
        shown = request.headers.get(LOCAL_SECRET)
        if shown is None:
            return f"no {LOCAL_SECRET}"
        if self._matches(shown):
            return None
        if self._given is None:  # the file may have been deleted, and made again with another secret
            self._secret = _secret_of_the_queue()
            if self._matches(shown):
                return None
        return f"wrong {LOCAL_SECRET} (this server and the dispatcher must use the same file)"

    def _matches(self, shown: str) -> bool:
        return hmac.compare_digest(shown.encode(errors="surrogateescape"), self._secret.encode())


def _secret_of_the_queue() -> str:
    config = current()
    transport = config.the_transport if config.transport is not None else None
    if not hasattr(transport, "secret"):
        transport = Config(transport="local").the_transport
    return str(transport.secret)  # type: ignore[union-attr]
