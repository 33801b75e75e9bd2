"""No queue at all: a task runs at once, in the call of `defer()`; for scripts and small tests."""

from __future__ import annotations

from typing import ClassVar

from ..delivery import Delivery
from ..record import new_id
from .base import Message, Transport


class ImmediateTransport(Transport):
    """Runs each task when it is sent. Its exceptions propagate; an ETA is ignored."""

    name: ClassVar[str] = "immediate"
    supports_names: ClassVar[bool] = False
    runs_tasks = True

    def send(self, message: Message) -> str:
        from ..run.execute import execute

        name = message.routing.name or new_id()
        delivery = Delivery(task_name=name, queue=message.routing.queue, retry_count=0, target="immediate")
        execute(message.body, delivery, shown=True)
        return name
