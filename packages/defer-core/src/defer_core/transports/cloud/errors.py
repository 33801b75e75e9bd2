"""The meaning of Cloud Tasks' errors, and what a person can do about them."""

from __future__ import annotations

from typing import Any

from ...errors import (
    AmbiguousSendError,
    QueueNotFoundError,
    TaskAlreadyExistsError,
    TaskSizeRefusedError,
    TransportError,
    TransportRefusedError,
    TransportUnavailableError,
)

RETRIED = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED"})
"""Codes on which a call is repeated: the queue says that it did not take the task, or could not be reached to take
it."""
_MISSING = frozenset({"NOT_FOUND", "FAILED_PRECONDITION"})
"""Codes of a missing queue: the first today, the second formerly."""
_REFUSED = frozenset({"INVALID_ARGUMENT", "OUT_OF_RANGE", "UNIMPLEMENTED", *_MISSING})


def from_rpc(error: Any, request: Any) -> TransportError:
    """Return our error for a grpc.RpcError."""
    return from_status(error.code().name, error.details() or "", request)


def from_status(code: str, details: str, request: Any) -> TransportError:
    """Return our error for a status code's name and its message, in answer to a CreateTaskRequest."""
    text = f"Cloud Tasks answered {code}: {details}"
    if code == "ALREADY_EXISTS":
        return TaskAlreadyExistsError(text)
    if _is_too_large(code, details):
        return TaskSizeRefusedError(f"{text} ({request.ByteSize()} bytes).")
    if code in RETRIED:
        return TransportUnavailableError(text)
    if code in _MISSING and "queue" in details.lower():
        return QueueNotFoundError(f"{text} {_create(request.parent)}")
    if code in ("PERMISSION_DENIED", "UNAUTHENTICATED"):
        return TransportRefusedError(f"{text} {_permit(request)}")
    if code in _REFUSED:
        return TransportRefusedError(text)
    return AmbiguousSendError(text)


def _is_too_large(code: str, details: str) -> bool:
    """Return True if the service's own limit, or that of a gRPC message, was exceeded."""
    return (code == "INVALID_ARGUMENT" and "too large" in details) or (
        code == "RESOURCE_EXHAUSTED" and "larger than max" in details
    )


def _create(queue: str) -> str:
    parts = queue.split("/")
    project, location, name = parts[1], parts[3], parts[5]
    return (
        f"Create it: gcloud tasks queues create {name} --project={project} --location={location}, "
        "or declare it and run `python -m defer_core queues create` (`manage.py defer_queues create`)."
    )


def _permit(request: Any) -> str:
    remedy = "Give this process's account roles/cloudtasks.enqueuer"
    email = request.task.http_request.oidc_token.service_account_email
    return f"{remedy}, and roles/iam.serviceAccountUser on {email}." if email else f"{remedy}."
