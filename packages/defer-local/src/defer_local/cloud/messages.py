"""Convert between the messages of the API and the tasks of the durable queue."""

from __future__ import annotations

from typing import Any

from google.cloud import tasks_v2
from google.rpc import code_pb2

from defer_core.spi import BODY_TYPE, MAX_ETA, RetryOptions, Routing, is_absolute, is_header, is_path, percent_encoded

from ..queued import QueuedTask
from ..transport import new_name
from .answers import invalid, unimplemented
from .names import project_of, split_task

Message = Any
"""A protobuf message; the library carries no types."""
Task: Any = tasks_v2.Task.pb()
RetryConfig: Any = tasks_v2.RetryConfig.pb()
FULL: int = tasks_v2.Task.View.FULL
BASIC: int = tasks_v2.Task.View.BASIC
METHODS: dict[int, str] = {each.value: each.name for each in tasks_v2.HttpMethod if each.value}
POST: int = tasks_v2.HttpMethod.POST

SIZE_LIMIT = 1_048_569
"""Bytes of the serialised task as stored: name, times and request."""
EARLIEST = -62_135_596_800.0
"""The first second of the year 1, the least that a Timestamp can hold."""
DEADLINES = {"http_request": (15.0, 1800.0), "app_engine_http_request": (15.0, 86415.0)}
"""The least and the greatest dispatch deadline, in seconds."""
CODES = {
    400: code_pb2.INVALID_ARGUMENT,
    401: code_pb2.UNAUTHENTICATED,
    403: code_pb2.PERMISSION_DENIED,
    404: code_pb2.NOT_FOUND,
    409: code_pb2.ABORTED,
    429: code_pb2.RESOURCE_EXHAUSTED,
    500: code_pb2.INTERNAL,
    501: code_pb2.UNIMPLEMENTED,
    503: code_pb2.UNAVAILABLE,
    504: code_pb2.DEADLINE_EXCEEDED,
}
"""The gRPC code of an attempt, by HTTP status."""
AGENTS = {
    "http_request": "Google-Cloud-Tasks",
    "app_engine_http_request": "AppEngine-Google; (+http://code.google.com/appengine)",
}


def stored(given: Message, queue: str, now: float) -> Message:
    """Return the Task as the service keeps it, completed with its defaults. Raises ApiError."""
    task = Task()
    task.CopyFrom(given)
    for output in ("dispatch_count", "response_count", "first_attempt", "last_attempt", "view"):
        task.ClearField(output)
    task.name = _name(given.name, queue)
    kind = task.WhichOneof("message_type")
    if kind is None:
        raise invalid("A task must have an http_request or an app_engine_http_request.")
    _complete_request(getattr(task, kind), kind, queue)
    task.create_time.FromSeconds(int(now))
    _complete_times(task, kind, now)
    check_retry(task.retry_config)
    if task.ByteSize() > SIZE_LIMIT:
        raise invalid("Task size too large")
    return task


def queued(task: Message, queue: str, now: float) -> QueuedTask:
    """Convert a stored Task to one of the durable queue."""
    kind = task.WhichOneof("message_type")
    request, eta = getattr(task, kind), time_of(task.schedule_time)
    routing = Routing(
        queue=queue.rpartition("/")[2],
        name=split_task(task.name)[1],
        url=request.url if kind == "http_request" else request.relative_uri,
        headers=dict(request.headers),
        retry=retry_options(task.retry_config) if task.HasField("retry_config") else None,
        dispatch_deadline=seconds(task.dispatch_deadline) or None,
    )
    return QueuedTask(
        queue=queue,
        name=routing.name or "",
        routing=routing,
        method=METHODS[request.http_method],
        body=request.body,
        proto=task.SerializeToString(),
        eta=eta,
        created=now,
        due=eta,
    )


def shown(queued: QueuedTask, view: int) -> Message:
    """Convert a task to one of the API: what was stored, with its attempts so far."""
    task = Task.FromString(queued.proto or b"")
    set_time(task.schedule_time, queued.due)
    task.dispatch_count, task.response_count = queued.attempts, queued.responses
    if queued.first_attempt is not None and queued.last_attempt is not None:
        set_time(task.first_attempt.dispatch_time, queued.first_attempt)
        set_time(task.last_attempt.dispatch_time, queued.last_attempt)
        _tell_answer(task.last_attempt, queued)
    task.view = view or BASIC
    if task.view == BASIC:
        getattr(task, task.WhichOneof("message_type")).ClearField("body")
    return task


def _tell_answer(attempt: Message, queued: QueuedTask) -> None:
    """Fill in how the last attempt ended, unless it is running."""
    if queued.owner is not None or queued.previous_response is None:
        return
    if queued.answered is None:
        attempt.response_status.code = code_pb2.DEADLINE_EXCEEDED
        return
    set_time(attempt.response_time, queued.answered)
    attempt.response_status.code = CODES.get(queued.previous_response, code_pb2.UNKNOWN)
    attempt.response_status.message = f"HTTP status code {queued.previous_response}"


def retry_options(config: Message) -> RetryOptions:
    """Convert a RetryConfig; None for each field that it leaves out."""
    return RetryOptions(
        max_attempts=config.max_attempts or None,
        max_retry_duration=_duration(config, "max_retry_duration"),
        min_backoff=_duration(config, "min_backoff"),
        max_backoff=_duration(config, "max_backoff"),
        max_doublings=config.max_doublings or None,
    )


def check_retry(config: Message) -> None:
    """Raise ApiError for an invalid RetryConfig."""
    for name, least in (("max_attempts", -1), ("max_doublings", 0)):
        if getattr(config, name) < least:
            raise invalid(f"RetryConfig.{name} must be at least {least}.")
    for name in ("max_retry_duration", "min_backoff", "max_backoff"):
        if seconds(getattr(config, name)) < 0:
            raise invalid(f"RetryConfig.{name} must not be negative.")


def time_of(timestamp: Message) -> float:
    """Convert a Timestamp to seconds since the epoch."""
    return float(timestamp.seconds) + float(timestamp.nanos) / 1e9


def set_time(timestamp: Message, when: float) -> None:
    """Set a Timestamp, to the microsecond."""
    timestamp.FromMicroseconds(round(when * 1e6))


def seconds(duration: Message) -> float:
    """Convert a Duration to seconds."""
    return float(duration.seconds) + float(duration.nanos) / 1e9


def _duration(config: Message, name: str) -> float | None:
    return seconds(getattr(config, name)) if config.HasField(name) else None


def _name(given: str, queue: str) -> str:
    if not given:
        return f"{queue}/tasks/{new_name()}"
    of, _ = split_task(given)
    if of != queue:
        raise invalid(
            f"The queue name from request ('{queue}') must be the same as the queue name in the named task ('{of}')."
        )
    return given


def _complete_request(request: Message, kind: str, queue: str) -> None:
    request.http_method = request.http_method or POST
    if request.http_method not in METHODS:
        raise invalid(f"There is no HTTP method {request.http_method}.")
    if request.body and METHODS[request.http_method] not in ("POST", "PUT", "PATCH"):
        raise invalid("A task with a body must have the HTTP method POST, PUT or PATCH.")
    if kind == "http_request":
        _check_http(request)
    else:
        _complete_app_engine(request, queue)
    for name, value in request.headers.items():
        if not is_header(name, value):
            raise invalid(f"HTTP cannot carry the header {name!r}.")
    given = {name.lower(): name for name in request.headers}
    own = request.headers.pop(given["user-agent"]) if "user-agent" in given else ""
    keeps = own and kind == "app_engine_http_request"
    request.headers["User-Agent"] = f"{own} {AGENTS[kind]}" if keeps else AGENTS[kind]
    if request.body and "content-type" not in given:
        request.headers["Content-Type"] = BODY_TYPE


def _check_http(request: Message) -> None:
    request.url = percent_encoded(request.url)
    if not is_absolute(request.url):
        raise invalid("HttpRequest.url must start with http:// or https://, and be a valid URL.")
    if request.HasField("oauth_token"):
        raise unimplemented("oauth_token, because only Google issues tokens for its own APIs: leave it out locally")
    if request.HasField("oidc_token") and not request.oidc_token.service_account_email:
        raise invalid("HttpRequest.oidc_token must have a service_account_email.")


def _complete_app_engine(request: Message, queue: str) -> None:
    request.relative_uri = request.relative_uri or "/"
    if not is_path(request.relative_uri):
        raise invalid("AppEngineHttpRequest.relative_uri must begin with '/', and be a valid path.")
    routing = request.app_engine_routing
    target = [routing.instance, routing.version, routing.service, f"{project_of(queue)}.appspot.com"]
    routing.host = ".".join(part for part in target if part)


def _complete_times(task: Message, kind: str, now: float) -> None:
    if not task.HasField("schedule_time"):
        set_time(task.schedule_time, now)
    if time_of(task.schedule_time) < EARLIEST:
        raise invalid("The task's schedule_time is before the year 1.")
    if time_of(task.schedule_time) > now + MAX_ETA:
        raise invalid("The task's schedule_time is more than 30 days in the future.")
    if task.HasField("dispatch_deadline"):
        least, most = DEADLINES[kind]
        if not least <= seconds(task.dispatch_deadline) <= most:
            raise invalid(f"The task's dispatch_deadline must be between {least:g} and {most:g} seconds.")
