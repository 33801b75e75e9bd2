"""A WSGI application that runs tasks, and the tasks, which write down in a file that they ran; for a server process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from defer_core import Delivery, Outcome, configure, execute
from defer_core.stores.sqlite import SQLiteTaskStore
from defer_local import LocalTransport

STATUS = {Outcome.DONE: "200 OK", Outcome.PERMANENT: "200 OK", Outcome.RETRY: "408 Request Timeout"}


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


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Runs what bears the secret of the queue."""
    transport = TRANSPORT
    if environ.get("HTTP_X_DEFER_LOCAL_SECRET") != transport.secret:
        start_response("403 Forbidden", [])
        return [b""]
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    delivery = Delivery(
        task_name=environ["HTTP_X_APPENGINE_TASKNAME"],
        queue=environ["HTTP_X_APPENGINE_QUEUENAME"],
        retry_count=int(environ["HTTP_X_APPENGINE_TASKRETRYCOUNT"]),
    )
    start_response(STATUS[execute(body, delivery)], [])
    return [b""]


if "LOCAL_SITE" in os.environ:
    TRANSPORT = setup(Path(os.environ["LOCAL_SITE"]))
