"""defer: call this function later, on Google Cloud Tasks, App Engine's Task Queue or the embedded queue."""

from __future__ import annotations

from .__about__ import __version__
from .cloud_logging import CloudLoggingFormatter
from .config import Config, configure
from .delivery import Delivery, current_delivery
from .errors import (
    BulkSendError,
    CallableError,
    CallableForbiddenError,
    ConfigError,
    DeferError,
    NotInTransactionError,
    OptionError,
    PayloadTooLargeError,
    PermanentTaskFailure,
    SingularTaskFailure,
    TaskAlreadyExistsError,
    TaskTooLargeError,
    TransportError,
    UnserializableError,
)
from .logs import LoggedOnce
from .run.execute import Outcome, execute
from .run.google import run_envelope
from .run.stopping import install_signal_handlers, is_stopping, with_signal_handlers
from .send.bulk import Call, defer_many
from .send.enqueue import adefer, defer, enqueue
from .send.handle import Status, TaskHandle
from .task import RetryOptions, Routing, Task, TaskOptions
from .upkeep.health import Health, health
from .wire.registry import register_type

__all__ = [
    "BulkSendError",
    "Call",
    "CallableError",
    "CallableForbiddenError",
    "CloudLoggingFormatter",
    "Config",
    "ConfigError",
    "DeferError",
    "Delivery",
    "Health",
    "LoggedOnce",
    "NotInTransactionError",
    "OptionError",
    "Outcome",
    "PayloadTooLargeError",
    "PermanentTaskFailure",
    "RetryOptions",
    "Routing",
    "SingularTaskFailure",
    "Status",
    "Task",
    "TaskAlreadyExistsError",
    "TaskHandle",
    "TaskOptions",
    "TaskTooLargeError",
    "TransportError",
    "UnserializableError",
    "__version__",
    "adefer",
    "configure",
    "current_delivery",
    "defer",
    "defer_many",
    "enqueue",
    "execute",
    "health",
    "install_signal_handlers",
    "is_stopping",
    "register_type",
    "run_envelope",
    "with_signal_handlers",
]
