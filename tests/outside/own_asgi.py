"""The site as an ASGI application, for any server: `outside.own_asgi:application`, started in the site's folder."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from outside.site import KEYS, note

from defer_core import configure, is_stopping
from defer_gae_handler.asgi import make_application

configure(transport="local", keys=KEYS, sweep_interval=0)
application = make_application()
_meeting: list[int] = []


async def meet(number: int, all_of_them: int) -> None:
    """A task: note the number once so many run at a time, on the server's own loop."""
    _meeting.append(number)
    while len(_meeting) < all_of_them:
        await asyncio.sleep(0.01)
    if threading.current_thread() is threading.main_thread():
        note(number)


async def until_stopped() -> None:
    """A task: say that it runs, and note when it is asked to stop."""
    Path("runs").touch()
    while not is_stopping():
        await asyncio.sleep(0.01)
    note(1)
