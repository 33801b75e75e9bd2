"""Records of any logger as the JSON that Google Cloud Logging reads from a service's output."""

from __future__ import annotations

import json
import logging
import math
import re
import sys
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime, timezone
from typing import Any

from . import log_fields
from .delivery import current_delivery
from .platform import project_of_environment
from .text import storable, traceback_of

LONGEST, DEEPEST, MOST = 50_000, 6, 100
"""Characters of a text, levels of a value and members of a level that are written: an entry may have 256 KB."""
SEVERITIES = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
GOOGLE = "logging.googleapis.com/"
_TRACE = re.compile("[0-9a-f]{32}")
_OF_EVERY_RECORD = {*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"}


class CloudLoggingFormatter(logging.Formatter):
    """Formats each record as one line of JSON: `severity`, `message`, `time`, `logger`, its `extra` as further fields,
    a traceback as `stack_trace`.

    What is logged in a task, by whatever logger, has the task's `task`, `queue` and `attempt`, and the trace of its
    request, so that the viewer shows it below that request; or OpenTelemetry's, where that has opened a span. `project`
    is the Google Cloud project of the traces, by default the environment's (GOOGLE_CLOUD_PROJECT). Never raises for
    what a record has.
    """

    def __init__(self, *, project: str | None = None) -> None:
        super().__init__()
        self._project = project

    def format(self, record: logging.LogRecord) -> str:
        delivery = current_delivery()
        found = ({} if delivery is None else log_fields.named(delivery)) | _span()
        found |= {name: value for name, value in record.__dict__.items() if name not in _OF_EVERY_RECORD}
        found = {name: _plain(value) for name, value in found.items()}
        if _TRACE.fullmatch(str(found.get("trace"))):
            trace, span = found.pop("trace"), found.pop("span", None)
            project = self._project or project_of_environment()
            found[f"{GOOGLE}trace"] = f"projects/{project}/traces/{trace}" if project else trace
            found |= {f"{GOOGLE}spanId": span} if span else {}
        return json.dumps(found | self._own(record))

    def _own(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return the fields of every record, which no `extra` replaces."""
        own: dict[str, Any] = {
            "severity": SEVERITIES[min(max(record.levelno // 10 - 1, 0), 4)],
            "message": _message(record),
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "logger": _text(record.name),
        }
        if record.lineno:
            where = {"file": _text(record.pathname), "line": str(record.lineno), "function": _text(record.funcName)}
            own[f"{GOOGLE}sourceLocation"] = where
        if trace := _traceback(record):
            own["stack_trace"] = trace
        return own


def _span() -> dict[str, str]:
    """Return the trace and the span that OpenTelemetry has opened here, if the process has loaded it."""
    otel = sys.modules.get("opentelemetry.trace")
    context = None if otel is None else otel.get_current_span().get_span_context()
    if context is None or not context.is_valid:
        return {}
    return {"trace": f"{context.trace_id:032x}", "span": f"{context.span_id:016x}"}


def _message(record: logging.LogRecord) -> str:
    try:
        return _text(record.getMessage())
    except Exception:  # arguments that do not fit the message: both are shown
        return f"{_text(record.msg)} {_text(record.args)}"


def _traceback(record: logging.LogRecord) -> str:
    """Return the traceback that a record has, or the stack that was asked for; else an empty text."""
    if record.exc_text:
        return _text(record.exc_text)
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    return traceback_of(error).rstrip() if error is not None else _text(record.stack_info or "")


def _plain(value: Any, depth: int = 0) -> Any:
    """Return a value as JSON can hold it: what it cannot, as text."""
    try:
        return _as_json(value, depth)
    except Exception:  # of a mapping that raises, say
        return f"<{type(value).__name__}>"


def _as_json(value: Any, depth: int) -> Any:
    match value:
        case None | bool():
            return value
        case int() if abs(value) < 2**63:
            return int(value)
        case float() if math.isfinite(value):
            return float(value)
        case Mapping() if depth < DEEPEST:
            pairs = list(value.items())[:MOST]
            return {_text(key): _plain(each, depth + 1) for key, each in pairs}
        case list() | tuple() | AbstractSet() if depth < DEEPEST:
            return [_plain(each, depth + 1) for each in list(value)[:MOST]]
    return _text(value)


def _text(value: Any) -> str:
    try:
        return storable(str(value))[:LONGEST]
    except Exception:
        return f"<{type(value).__name__}>"
