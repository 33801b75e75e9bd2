"""The seam behind which it is decided who may post tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from defer_core.errors import DeferError

from ..request import Request


class DoorUnavailableError(DeferError):
    """The door cannot tell yet whether to open: the queue is to come again."""


class Door(ABC):
    """Lets the requests of one kind of queue in. Its keyword arguments are `door_options[name]`."""

    name: ClassVar[str] = ""
    """What the configuration calls it."""
    target: ClassVar[str] = ""
    """The kind of target that a Delivery through this door has; empty goes by the headers."""
    require_signature: ClassVar[bool] = False
    """Whether the door vouches for nobody by itself, so that only a signed envelope may run."""

    @abstractmethod
    def admits(self, request: Request) -> bool:
        """Whether the request may come in; its body is not to be read. Raises DoorUnavailableError."""
