"""The door of emulators in development: requests from this machine, with signed tasks."""

from __future__ import annotations

from ipaddress import ip_address
from typing import ClassVar

from defer_core.config import refuse_on_google_cloud

from ..request import Request
from .base import Door

_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")


class LoopbackDoor(Door):
    """Opens to 127.0.0.0/8 and ::1, not through a proxy; what comes in must be signed. Refused on Google Cloud."""

    name: ClassVar[str] = "loopback"
    require_signature: ClassVar[bool] = True

    def __init__(self) -> None:
        refuse_on_google_cloud("The door 'loopback'")

    def admits(self, request: Request) -> bool:
        return _is_loopback(request.remote_addr) and not any(name in request.headers for name in _FORWARDED)


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
