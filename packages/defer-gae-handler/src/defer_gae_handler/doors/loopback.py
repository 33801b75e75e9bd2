"""The door of emulators in development: requests from this machine, with signed tasks."""

from __future__ import annotations

from typing import ClassVar

from defer_core.config import refuse_on_google_cloud

from ..request import Request
from .addresses import address_of
from .base import Door

_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")


class LoopbackDoor(Door):
    """Opens to 127.0.0.0/8 and ::1, not through a proxy; what comes in must be signed. Refused on Google Cloud."""

    name: ClassVar[str] = "loopback"
    require_signature: ClassVar[bool] = True

    def __init__(self) -> None:
        refuse_on_google_cloud("The door 'loopback'")

    def admits(self, request: Request) -> bool:
        address = address_of(request.remote_addr)
        here = address is not None and address.is_loopback
        return here and not any(name in request.headers for name in _FORWARDED)
