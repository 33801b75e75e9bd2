"""defer's embedded default: a durable queue in one SQLite file, and the dispatcher that delivers its tasks."""

from __future__ import annotations

from .__about__ import __version__
from .dispatcher import Dispatcher
from .queue import DurableQueue
from .transport import LocalTransport

__all__ = ["Dispatcher", "DurableQueue", "LocalTransport", "__version__"]
