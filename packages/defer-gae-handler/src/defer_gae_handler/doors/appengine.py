"""The door of App Engine, where Google replaces the X-AppEngine headers of outside requests."""

from __future__ import annotations

import os
from functools import lru_cache
from ipaddress import ip_network
from typing import ClassVar

from ..request import Request, values
from .addresses import address_of
from .base import Door

QUEUE_ADDRESS = "0.1.0.2"
"""Where App Engine says that tasks come from."""
_SHOWN = ("X-AppEngine-TaskName", "X-AppEngine-QueueName", "X-AppEngine-User-IP")
_RESERVED = ip_network("0.0.0.0/8")


def on_app_engine() -> bool:
    """Whether this process runs on App Engine, and not in something that only says so on a laptop."""
    return os.environ.get("GAE_ENV", "") not in ("", "localdev", "development")


class AppEngineDoor(Door):
    """Opens on App Engine alone (`GAE_ENV`): anywhere else everybody can send these headers."""

    name: ClassVar[str] = "appengine"
    target: ClassVar[str] = "appengine"

    def __init__(self) -> None:
        self._here = on_app_engine()

    def admits(self, request: Request) -> bool:
        task, queue, address = values(request.headers, _SHOWN)
        return self._here and bool(task or queue) and _comes_from_the_queue(address, request.remote_addr)


def is_cron(request: Request) -> bool:
    """Whether App Engine's cron service sends this."""
    return request.headers.get("X-AppEngine-Cron") == "true" and on_app_engine()


def _comes_from_the_queue(shown: str | None, peer: str) -> bool:
    """The client's address, where App Engine's header or the SDK's middleware shows it, is the queue's."""
    if shown is not None:
        return shown == QUEUE_ADDRESS
    return peer == QUEUE_ADDRESS or _is_internal(peer)


@lru_cache(maxsize=256)
def _is_internal(address: str) -> bool:
    """Whether this is the platform's own proxy, behind which the client's address is not visible."""
    parsed = address_of(address)
    if parsed is None:
        return True  # a Unix socket
    return parsed.is_private and parsed not in _RESERVED
