"""No queue at all: a task runs at once, in the call of `defer()`; for scripts and small tests."""

from __future__ import annotations

from typing import ClassVar

from ..delivery import Delivery
from ..record import new_id
from .base import Message, Transport


class ImmediateTransport(Transport):
    """Runs each task where it is sent. Its exceptions propagate; an ETA is not waited for."""

    name: ClassVar[str] = "immediate"
    supports_names: ClassVar[bool] = False
    supports_eta: ClassVar[bool] = False

    def send(self, message: Message) -> str:
        from ..execute import execute

        name = message.routing.name or new_id()
        execute(message.body, Delivery(task_name=name, queue=message.routing.queue, retry_count=0, target="immediate"))
        return name
