"""What tests need: a store and a queue in memory, and `drain()`, which runs what is queued."""

from __future__ import annotations

from ..config import configured
from ..config import reset as forget_configuration
from ..stores.memory import MemoryStore
from ..transports.memory import MemoryTransport, QueuedTask
from .deferred import Deferred
from .isolation import Isolation, isolated
from .queue import Drained, drain, in_memory, run_one, settlers

__all__ = [
    "Deferred",
    "Drained",
    "Isolation",
    "MemoryStore",
    "MemoryTransport",
    "QueuedTask",
    "configured",
    "drain",
    "forget_configuration",
    "in_memory",
    "isolated",
    "run_one",
    "settlers",
]
