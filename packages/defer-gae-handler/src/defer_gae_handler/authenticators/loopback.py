"""Signed tasks from this machine, for emulators in development."""

from __future__ import annotations

from typing import ClassVar

from defer_core.spi import one_line, refuse_on_google_cloud

from ..request import Request
from .addresses import address_of
from .base import ExplainingAuthenticator

_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")


class LoopbackAddress(ExplainingAuthenticator):
    """Accepts 127.0.0.0/8 and ::1 without a proxy; the task must be signed. Refused on Google Cloud."""

    name: ClassVar[str] = "loopback"
    require_signature: ClassVar[bool] = True

    def __init__(self) -> None:
        refuse_on_google_cloud("The authenticator 'loopback'")

    def refusal(self, request: Request) -> str | None:
        address = address_of(request.remote_addr)
        if address is None or not address.is_loopback:
            return f"wrong address ({one_line(request.remote_addr, 60) or 'none'}, expected this machine's)"
        proxies = [name for name in _FORWARDED if name in request.headers]
        return f"came through a proxy ({', '.join(proxies)})" if proxies else None
