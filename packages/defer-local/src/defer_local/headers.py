"""The headers of a dispatched task, as Cloud Tasks sends them."""

from __future__ import annotations

from defer_core.spi import BODY_TYPE, LOCAL_SECRET

from .queued import QueuedTask

RESERVED = ("x-appengine-", "x-cloudtasks-", "x-google-", "x-defer-local-")
"""Headers that a task cannot set for itself."""
_HOP = frozenset({"host", "content-length", "user-agent", "connection", "transfer-encoding"})


def dispatch_headers(task: QueuedTask, secret: str | None = None) -> dict[str, str]:
    """Make the headers of the attempt for which `task` is leased; give `secret` if the receiver may know it."""
    headers = {name: value for name, value in task.routing.headers.items() if _may_set(name)}
    if task.body and not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = BODY_TYPE
    headers["User-Agent"] = "Google-Cloud-Tasks" if task.is_http else _app_engine_agent(task)
    prefix = "X-CloudTasks-" if task.is_http else "X-AppEngine-"
    headers |= {prefix + name: value for name, value in _attempt(task).items()}
    if secret is not None:
        headers[LOCAL_SECRET] = secret
    return headers


def _app_engine_agent(task: QueuedTask) -> str:
    """Append the service's agent to the task's own."""
    service = "AppEngine-Google; (+http://code.google.com/appengine)"
    own = next((value for name, value in task.routing.headers.items() if name.lower() == "user-agent"), "")
    return own if own.endswith(service) else f"{own} {service}".strip()


def _may_set(name: str) -> bool:
    return name.lower() not in _HOP and not name.lower().startswith(RESERVED)


def _attempt(task: QueuedTask) -> dict[str, str]:
    told = {
        "QueueName": task.queue_id,
        "TaskName": task.name,
        "TaskETA": f"{task.eta:.6f}",
        "TaskRetryCount": str(task.attempts - 1),
        "TaskExecutionCount": str(task.executions),
    }
    if task.previous_response is not None:
        told |= {"TaskPreviousResponse": str(task.previous_response), "TaskRetryReason": task.retry_reason}
    return told
