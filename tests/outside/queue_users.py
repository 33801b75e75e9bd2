"""Processes that use one queue's file: `python -m outside.queue_users ROLE FIRST [COUNT]`, in the site's folder.

A number is written down as acknowledged once `defer()` has returned, and not before.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from outside.site import KEYS, note

from defer_core import configure, defer

ACKNOWLEDGED = Path("acknowledged")


def send(number: int) -> None:
    """Defer one task: every other one without a record in the store."""
    defer(note, number, _name=f"n{number}", _small_task=number % 2 == 0)
    acknowledged = os.open(ACKNOWLEDGED, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(acknowledged, f"{number}\n".encode())
    os.close(acknowledged)


def short(first: int, count: int) -> None:
    """Send a few from two threads, and end."""
    threads = [threading.Thread(target=send, args=(first + number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def long(first: int, count: int) -> None:
    """Send from threads that come and go beside one that stays, for as long as this lives."""
    for number in range(first, first + count, 3):
        send(number)
        short(number + 1, 2)
        time.sleep(0.02)


def forking(first: int, count: int) -> None:
    """Send from a thread while children are forked that send, too."""
    threading.Thread(target=long, args=(first, count // 2), daemon=True).start()
    for number in range(first + count // 2, first + count):
        pid = os.fork()
        if pid == 0:
            send(number)
            sys.exit(0)
        os.waitpid(pid, 0)
        time.sleep(0.05)


def read(first: int, count: int) -> None:
    """Open, look, and close, as a shell and the commands do."""
    from defer_core import config
    from defer_core.record import State
    from defer_local import DurableQueue

    queue, store = DurableQueue(), config.current().the_store
    assert store is not None
    for _ in range(count):
        queue.tasks()
        store.list(State.DEAD)
        queue.close()
        store.close()
        time.sleep(0.05)


if __name__ == "__main__":
    configure(transport="local", keys=KEYS)
    role, first, *count = sys.argv[1:]
    globals()[role](int(first), *map(int, count))
