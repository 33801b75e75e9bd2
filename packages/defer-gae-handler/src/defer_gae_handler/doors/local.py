"""The door of the local queue: its dispatcher sends a secret that lies in the queue's file."""

from __future__ import annotations

import hmac
from typing import ClassVar

from defer_core.config import TRANSPORTS, build, current, refuse_on_google_cloud
from defer_core.errors import ConfigError
from defer_core.transports.base import Transport

from ..request import Request
from .base import Door

SECRET = "X-Defer-Local-Secret"
"""The header with the secret."""


class LocalDoor(Door):
    """Opens to the secret of the local queue (`secret`, else the configured transport's, else the default queue's)."""

    name: ClassVar[str] = "local"
    target: ClassVar[str] = "local"

    def __init__(self, *, secret: str | None = None) -> None:
        refuse_on_google_cloud("The local queue's door")
        self._secret = (_secret_of_the_queue() if secret is None else secret).encode()
        if not self._secret:
            raise ConfigError("The secret of the door 'local' is empty.")

    def admits(self, request: Request) -> bool:
        shown = request.headers.get(SECRET)
        return shown is not None and hmac.compare_digest(shown.encode(errors="surrogateescape"), self._secret)


def _secret_of_the_queue() -> str:
    config = current()
    transport = config.the_transport if config.transport is not None else None
    if not hasattr(transport, "secret"):
        transport = build("local", TRANSPORTS, {}, Transport)
    return str(transport.secret)  # type: ignore[union-attr]
