"""What an adapter may import of the core: a store, a transport, a handler or the integration of a framework.

These names are stable within a major version, as are those of `defer_core`, `defer_core.errors` and
`defer_core.testing`: none is removed or changed in a way that breaks its users. All else in `defer_core` is private,
whatever its name. docs/adapters.md has a store and a transport in full.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import clock
from .config import Config, add_layer, as_configured, current, from_environment, nearest, set_source
from .config import located as locate_file
from .config.model import build as build_adapter
from .config.queues import declared as declared_queues
from .config.queues import parse as parse_queue
from .delivery import DEFAULT_DEADLINE, Delivery, Ending
from .extras import require_named as require_extras
from .http_syntax import BODY_TYPE, LOCAL_SECRET, is_absolute, is_header, is_path
from .http_syntax import encoded as percent_encoded
from .log_fields import of_attempt as attempt_fields
from .logs import is_logged, logger
from .nouns import fast_init
from .platform import (
    app_engine_environment,
    on_app_engine,
    on_development_server,
    on_google_cloud,
    project_of_environment,
    refuse_on_google_cloud,
)
from .record import State, TaskRecord, new_id
from .run.attempts import Attempt, register_observer
from .run.awaiting import await_by, finished
from .run.google import run_body, sdk_failure
from .run.stopping import failure_of
from .send.arguments import check as check_arguments
from .send.bulk import enqueue_many
from .send.options import MAX_ETA
from .send.options import parse as parse_options
from .send.outbox import serialize
from .send.placement import check_placement
from .send.retrying import attempt_limit
from .stores.base import ForgetList, TaskStore
from .stores.base import readable as read_records
from .task import RetryOptions, Routing, Task, TaskOptions
from .telemetry.metrics import count_rows
from .telemetry.spans import going_on as going_on_with_trace
from .telemetry.spans import outgoing as current_trace
from .text import last_line, one_line, printable, shortened, storable, traceback_of
from .transports.base import Message, QueueState, Transport
from .upkeep.dead_letters import rerun
from .upkeep.sections import register_section
from .upkeep.sweep import register_sweeper, sweep
from .wire.callables import label, resolve, to_ref, to_runnable_ref
from .wire.decoder import unpack as decode
from .wire.describe import call_of, callable_in, describe, describe_call_in, describe_members, register_describer
from .wire.encoder import pack as encode
from .wire.encoder import wiping
from .wire.envelope import is_envelope
from .wire.frame import is_cut_off, is_framed
from .wire.legacy import load as load_legacy
from .wire.registry import register_type

if TYPE_CHECKING:
    from .commands import (
        add_dead_arguments,
        add_health_arguments,
        add_queue_arguments,
        add_status_arguments,
        add_sweep_arguments,
        add_watch_argument,
        run_dead,
        run_health,
        run_queues,
        run_status,
        run_sweep,
    )
    from .stores.sqlite_file import SQLiteFile
    from .transports.cloud.queues import QueueAdmin
    from .transports.cloud.transport import CloudTasksTransport

# All adapters
__all__ = [
    "Config",
    "Delivery",
    "RetryOptions",
    "Routing",
    "Task",
    "TaskOptions",
    "clock",
    "current",
    "fast_init",
    "last_line",
    "logger",
    "new_id",
    "one_line",
    "printable",
]

# Stores
__all__ += [
    "ForgetList",
    "State",
    "TaskRecord",
    "TaskStore",
    "read_records",
    "shortened",
    "storable",
]

# Transports, and the queues behind them
__all__ += [
    "BODY_TYPE",
    "DEFAULT_DEADLINE",
    "LOCAL_SECRET",
    "MAX_ETA",
    "CloudTasksTransport",
    "Message",
    "QueueAdmin",
    "QueueState",
    "SQLiteFile",
    "Transport",
    "callable_in",
    "declared_queues",
    "is_absolute",
    "is_header",
    "is_path",
    "locate_file",
    "parse_queue",
    "percent_encoded",
]

# Handlers
__all__ += [
    "attempt_fields",
    "await_by",
    "is_cut_off",
    "is_framed",
    "is_logged",
    "load_legacy",
    "run_body",
    "sdk_failure",
    "serialize",
    "sweep",
]

# Frameworks: their settings, values, commands and pages
__all__ += [
    "Attempt",
    "Ending",
    "add_dead_arguments",
    "add_health_arguments",
    "add_layer",
    "add_queue_arguments",
    "add_status_arguments",
    "add_sweep_arguments",
    "add_watch_argument",
    "app_engine_environment",
    "as_configured",
    "attempt_limit",
    "build_adapter",
    "call_of",
    "describe",
    "describe_call_in",
    "describe_members",
    "from_environment",
    "is_envelope",
    "nearest",
    "on_app_engine",
    "on_development_server",
    "on_google_cloud",
    "project_of_environment",
    "refuse_on_google_cloud",
    "register_describer",
    "register_observer",
    "register_type",
    "require_extras",
    "rerun",
    "run_dead",
    "run_health",
    "run_queues",
    "run_status",
    "run_sweep",
    "set_source",
    "wiping",
]

# Packages that defer tasks of their own, and call what their users give them
__all__ += [
    "check_arguments",
    "check_placement",
    "count_rows",
    "current_trace",
    "decode",
    "encode",
    "enqueue_many",
    "failure_of",
    "finished",
    "going_on_with_trace",
    "label",
    "parse_options",
    "register_section",
    "register_sweeper",
    "resolve",
    "to_ref",
    "to_runnable_ref",
    "traceback_of",
]

_COMMANDS = [f"{what}_arguments" for what in ("add_dead", "add_health", "add_queue", "add_status", "add_sweep")]
_COMMANDS += ["add_watch_argument", "run_dead", "run_health", "run_queues", "run_status", "run_sweep"]
_LATER = {
    **dict.fromkeys(_COMMANDS, "commands"),
    "CloudTasksTransport": "transports.cloud.transport",
    "QueueAdmin": "transports.cloud.queues",
    "SQLiteFile": "stores.sqlite_file",
}
"""Modules that are imported when one of their names is: a handler must start without `argparse` and `sqlite3`."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_LATER[name]}", __package__), name)
