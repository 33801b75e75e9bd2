"""A Message as a request of Cloud Tasks, made of the bare protobuf classes: their wrappers cost more than the call."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from ...errors import TransportRefusedError
from ...http_syntax import BODY_TYPE
from ...task import RetryOptions, Routing
from ..base import Message

HTTP_DEADLINES, APP_ENGINE_DEADLINES = (15.0, 1800.0), (15.0, 86415.0)
"""Seconds, least and most, that Cloud Tasks gives an attempt."""


_NAMES = """CreateTaskRequest BatchCreateTasksRequest BatchCreateTasksResponse BatchCreateTasksMetadata GetQueueRequest
CreateQueueRequest UpdateQueueRequest PauseQueueRequest ResumeQueueRequest PurgeQueueRequest""".split()


@cache
def protobuf() -> Any:
    """Return the protobuf classes of the API, imported on first use: that takes a fifth of a second."""
    from google.cloud.tasks_v2.types import cloudtasks, queue
    from google.longrunning.operations_pb2 import GetOperationRequest, Operation

    classes = {name: getattr(cloudtasks, name).pb() for name in _NAMES}
    task = classes["CreateTaskRequest"]().task.__class__
    operations = {"Operation": Operation, "GetOperationRequest": GetOperationRequest}
    return SimpleNamespace(**classes, **operations, Task=task, Queue=queue.Queue.pb())


def short_name(name: str) -> str:
    """Return the last part of a full name."""
    return name.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class Target:
    """The default destination of tasks."""

    parent: str
    """`projects/P/locations/L`."""
    base_url: str | None = None
    """Prefix of a path, which makes it an HTTP target. None makes a path an App Engine target."""
    service: str | None = None
    """App Engine service."""
    version: str | None = None
    """App Engine version of that service."""
    service_account_email: str | None = None
    """The account of the OIDC token for an HTTP target; None is no token."""
    audience: str | None = None
    """The audience of the token; None is the target's origin."""
    on_cloud_run: bool = False
    """True if this process runs on Cloud Run, where a path leads nowhere."""

    def queue(self, name: str) -> str:
        """Return the full name of a queue."""
        return f"{self.parent}/queues/{name}"


def build(message: Message, target: Target) -> Any:
    """Return the CreateTaskRequest of a message. Raises TransportRefusedError for a deadline that the target does not
    allow, and for a path on Cloud Run."""
    request, routing = protobuf().CreateTaskRequest(), message.routing
    request.parent = target.queue(routing.queue)
    task = request.task
    if routing.name is not None:
        task.name = f"{request.parent}/tasks/{routing.name}"
    if routing.eta is not None:
        task.schedule_time.FromMicroseconds(round(routing.eta * 1e6))
    url = routing.url or "/_ah/queue/deferred"
    if target.base_url and url.startswith("/"):
        url = target.base_url.rstrip("/") + url
    http = not url.startswith("/")
    if routing.dispatch_deadline is not None:
        task.dispatch_deadline.FromNanoseconds(_deadline(routing.dispatch_deadline, http))
    if routing.retry is not None:
        _set_retry(task.retry_config, routing.retry)
    if http:
        _set_http(task.http_request, url, message, target)
    else:
        _set_app_engine(task.app_engine_http_request, url, message, target)
    return request


def _set_http(request: Any, url: str, message: Message, target: Target) -> None:
    request.url = url
    request.body = message.body
    request.headers["Content-Type"] = BODY_TYPE
    if message.routing.headers:
        request.headers.update(message.routing.headers)
    if target.service_account_email:
        request.oidc_token.service_account_email = target.service_account_email
        request.oidc_token.audience = target.audience or "{0.scheme}://{0.netloc}".format(urlsplit(url))


def _set_app_engine(request: Any, path: str, message: Message, target: Target) -> None:
    if target.on_cloud_run:
        raise TransportRefusedError(
            f"The task goes to the path {path!r}, which is an App Engine target, and this is Cloud Run: "
            'configure `url` as an absolute URL, or transport_options={"base_url": "https://..."}.'
        )
    request.relative_uri = path
    request.body = message.body
    if message.routing.headers:
        request.headers.update(message.routing.headers)
    service, version, instance = _address(message.routing, target)
    if service:
        request.app_engine_routing.service = service
    if version:
        request.app_engine_routing.version = version
    if instance:
        request.app_engine_routing.instance = instance


def _address(routing: Routing, target: Target) -> tuple[str | None, str | None, str | None]:
    """Return service, version and instance. A task that names neither service nor version stays with those that it
    comes from; another service has its own default version."""
    if routing.service is None:
        return target.service, routing.version or target.version, routing.instance
    return routing.service, routing.version, routing.instance


def _deadline(seconds: float, http: bool) -> int:
    least, most = HTTP_DEADLINES if http else APP_ENGINE_DEADLINES
    if not least <= seconds <= most:
        kind = "an HTTP" if http else "an App Engine"
        raise TransportRefusedError(
            f"A dispatch deadline of {seconds:g} s is out of range: {kind} target takes {least:g} to {most:g} s."
        )
    return round(seconds * 1e9)


def _set_retry(config: Any, retry: RetryOptions) -> None:
    config.SetInParent()
    if retry.max_attempts is not None:
        config.max_attempts = retry.max_attempts
    if retry.max_doublings is not None:
        config.max_doublings = int(retry.max_doublings)
    for name in ("max_retry_duration", "min_backoff", "max_backoff"):
        seconds = getattr(retry, name)
        if seconds is not None:
            getattr(config, name).FromNanoseconds(round(seconds * 1e9))
