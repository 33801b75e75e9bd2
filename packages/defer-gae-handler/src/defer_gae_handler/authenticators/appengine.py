"""App Engine's headers: Google replaces those that a request from outside has."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_network
from typing import ClassVar

from defer_core.spi import on_app_engine, one_line

from ..request import Request, values
from .addresses import address_of
from .base import ExplainingAuthenticator

QUEUE_ADDRESS = "0.1.0.2"
"""The address that App Engine shows for tasks."""
CRON_ADDRESSES = (QUEUE_ADDRESS, "0.1.0.1")
"""The addresses that it shows for cron jobs; an old `gcloud` makes those of the second."""
_SHOWN = ("X-AppEngine-TaskName", "X-AppEngine-QueueName", "X-AppEngine-User-IP")
_RESERVED = ip_network("0.0.0.0/8")


NOT_HERE = "not on App Engine (GAE_ENV)"


class AppEngineHeaders(ExplainingAuthenticator):
    """Accepts App Engine's task headers, on App Engine alone (`GAE_ENV`): elsewhere anyone can send them."""

    name: ClassVar[str] = "appengine"
    target: ClassVar[str] = "appengine"

    def __init__(self) -> None:
        self._here = on_app_engine()

    def refusal(self, request: Request) -> str | None:
        if not self._here:
            return NOT_HERE
        task, queue, address = values(request.headers, _SHOWN)
        if not (task or queue):
            return "no task headers (X-AppEngine-TaskName, X-AppEngine-QueueName)"
        return _wrong_address(address, request.remote_addr, (QUEUE_ADDRESS,))


def cron_refusal(request: Request) -> str | None:
    """Return why a request does not come from App Engine's cron service, else None."""
    if not on_app_engine():
        return NOT_HERE
    if request.headers.get("X-AppEngine-Cron") != "true":
        return "no cron job (X-AppEngine-Cron is not true)"
    return _wrong_address(request.headers.get("X-AppEngine-User-IP"), request.remote_addr, CRON_ADDRESSES)


def _wrong_address(shown: str | None, peer: str, expected: tuple[str, ...]) -> str | None:
    """Return a refusal if the client's address is known, by App Engine's header or by the SDK's middleware, and is
    not among the expected ones."""
    address = peer if shown is None else shown
    if address in expected:
        return None
    if shown is None and len(peer) < 64 and _is_internal(peer):
        return None
    return f"wrong address ({one_line(address, 60)}, expected {' or '.join(expected)})"


@lru_cache(maxsize=256)
def _is_internal(address: str) -> bool:
    """Tell the platform's own proxy, which hides the client's address, from other peers."""
    parsed = address_of(address)
    if parsed is None:
        return True  # a Unix socket
    return parsed.is_private and parsed not in _RESERVED
