"""A queue in a folder: a file is a task, its folder the queue, and its time of change says when it is due."""

from __future__ import annotations

import os
from pathlib import Path

from defer_core import Delivery, Outcome, execute
from defer_core.errors import TaskAlreadyExistsError, TransportUnavailableError
from defer_core.spi import Message, Transport, clock, new_id


class FolderTransport(Transport):
    name = "folder"

    def __init__(self, *, folder: str | Path) -> None:
        self.folder = Path(folder)

    def send(self, message: Message) -> str:
        routing = message.routing
        name, due = routing.name or new_id(), routing.eta or clock.now()
        queue, written = self.folder / routing.queue, self.folder / new_id()
        try:
            queue.mkdir(parents=True, exist_ok=True)
            written.write_bytes(message.body)
            os.utime(written, (due, due))
            os.link(written, queue / name)  # which no other process sees half written
            written.unlink()
        except FileExistsError as error:
            written.unlink()
            raise TaskAlreadyExistsError(f"The queue {routing.queue!r} has a task {name!r}.") from error
        except OSError as error:
            raise TransportUnavailableError(f"{self.folder} took no task: {error}") from error
        return name


def run_due(folder: str | Path) -> None:
    """Run the tasks that are due. A process calls this every second; those that fail stay, and are run again."""
    for file in sorted(Path(folder).glob("*/*")):
        if file.stat().st_mtime > clock.now():
            continue
        delivery = Delivery(task_name=file.name, queue=file.parent.name, target="folder")
        try:
            outcome = execute(file.read_bytes(), delivery)
        except Exception:  # which the log has
            outcome = Outcome.RETRY
        if outcome is not Outcome.RETRY:
            file.unlink()
