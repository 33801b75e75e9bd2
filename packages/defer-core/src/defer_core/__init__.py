"""defer: call this function later, on Google Cloud Tasks, App Engine's Task Queue or the embedded queue."""

from __future__ import annotations

from .__about__ import __version__
from .bulk import Call, defer_many
from .codec import register_type
from .config import Config, configure
from .delivery import Delivery, current_delivery
from .enqueue import adefer, defer, enqueue
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
from .execute import Outcome, execute
from .google import run_envelope
from .handle import Status, TaskHandle
from .stopping import install_signal_handlers, is_stopping
from .task import RetryOptions, Routing, Task, TaskOptions

__all__ = [
    "BulkSendError",
    "Call",
    "CallableError",
    "CallableForbiddenError",
    "Config",
    "ConfigError",
    "DeferError",
    "Delivery",
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
    "install_signal_handlers",
    "is_stopping",
    "register_type",
    "run_envelope",
]
