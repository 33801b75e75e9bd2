"""An application that sends while it is loaded, and from a thread that stays: for servers that fork afterwards.

`/NUMBER` sends one more, and answers once that is acknowledged.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from outside.queue_users import send
from outside.site import KEYS

from defer_core import configure

configure(transport="local", keys=KEYS)
sent, stay = threading.Event(), threading.Event()


def idle() -> None:
    send(2)
    sent.set()
    stay.wait()


send(1)
threading.Thread(target=idle, daemon=True).start()
assert sent.wait(30)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Send a number."""
    send(int(environ["PATH_INFO"].strip("/")))
    start_response("200 OK", [("Content-Length", "0")])
    return []
