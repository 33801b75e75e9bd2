"""A site that runs tasks through the real handler, and a task that writes down in a file that it ran."""

from __future__ import annotations

import os
import time
from pathlib import Path

from defer_core import configure
from defer_core.stores.sqlite import SQLiteTaskStore
from defer_local import LocalTransport


def setup(folder: Path) -> LocalTransport:
    """Queue, store and ledger in `folder`."""
    os.environ["LOCAL_SITE"] = str(folder)
    transport = LocalTransport(file=folder / "queue.sqlite3")
    configure(transport=transport, store=SQLiteTaskStore(file=folder / "store.sqlite3"), sweep_interval=0)
    return transport


def note(number: int, seconds: float = 0.0) -> None:
    """A task: takes its time, then writes its number down in one append."""
    time.sleep(seconds)
    ledger = os.open(Path(os.environ["LOCAL_SITE"]) / "ledger", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(ledger, f"{number}\n".encode())
    os.close(ledger)


def ran(folder: Path) -> list[int]:
    """The numbers that are written down."""
    ledger = folder / "ledger"
    return [int(line) for line in ledger.read_text().split()] if ledger.exists() else []


if "LOCAL_SITE" in os.environ:  # in a process that serves
    setup(Path(os.environ["LOCAL_SITE"]))
    from defer_gae_handler import application  # noqa: F401
