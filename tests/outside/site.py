"""The site that the servers of this folder serve, and its one task. Its folder is that of the process."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from defer_core import config, configure
from defer_local import LocalTransport

KEYS = ["the site's own key"]
QUEUE, LEDGER, ATTEMPTS = Path(".defer/queue.sqlite3"), Path("ledger"), Path("attempts")


def note(number: int, padding: object = None) -> None:
    """A task: write its number down, in one append."""
    ledger = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(ledger, f"{number}\n".encode())
    os.close(ledger)


def attempt(number: int) -> None:
    """A task that takes a moment: write down when each attempt at it begins and ends."""
    for what, pause in (("begins", 0.005), ("ends", 0.0)):
        ledger = os.open(ATTEMPTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(ledger, f"{number} {what} {time.time()}\n".encode())
        os.close(ledger)
        time.sleep(pause)


def attempts(folder: Path) -> dict[int, list[tuple[str, float]]]:
    """What is written down of them, by number and in the order of time."""
    told: dict[int, list[tuple[str, float]]] = {}
    ledger = folder / ATTEMPTS
    for line in ledger.read_text().splitlines() if ledger.exists() else []:
        number, what, when = line.split()
        told.setdefault(int(number), []).append((what, float(when)))
    return told


def ran(folder: Path) -> list[int]:
    """The numbers that are written down in a site's folder."""
    ledger = folder / LEDGER
    return [int(line) for line in ledger.read_text().split()] if ledger.exists() else []


@contextmanager
def sending(folder: Path) -> Iterator[LocalTransport]:
    """Let `defer()` in this process send to the site in a folder."""
    transport = LocalTransport(file=folder / QUEUE)
    configure(transport=transport, store="memory", keys=KEYS)
    try:
        yield transport
    finally:
        transport.close()
        config.reset()
