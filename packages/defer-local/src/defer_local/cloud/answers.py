"""The errors of the service, in its own words."""

from __future__ import annotations

import grpc


class ApiError(Exception):
    """An RPC that fails with a status code and a message."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message: str) -> ApiError:
    """Make INVALID_ARGUMENT."""
    return ApiError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str = "Requested entity was not found.") -> ApiError:
    """Make NOT_FOUND."""
    return ApiError(grpc.StatusCode.NOT_FOUND, message)


def unimplemented(what: str) -> ApiError:
    """Make UNIMPLEMENTED, naming what this server cannot do."""
    return ApiError(grpc.StatusCode.UNIMPLEMENTED, f"The local Cloud Tasks server does not support {what}.")


def no_such_queue() -> ApiError:
    """Make NOT_FOUND, for a queue that does not exist (any more)."""
    return not_found(
        "Queue does not exist. If you just created the queue, wait at least a minute for the queue to initialize."
    )


def task_is_over() -> ApiError:
    """Make NOT_FOUND, for a task that existed recently."""
    return not_found(
        "The task no longer exists, though a task with this name existed recently. "
        "The task either successfully completed or was deleted."
    )


def queue_exists() -> ApiError:
    """Make ALREADY_EXISTS, for a queue."""
    return ApiError(grpc.StatusCode.ALREADY_EXISTS, "Queue already exists")


def task_exists() -> ApiError:
    """Make ALREADY_EXISTS, for the name of a task or of a recent one."""
    return ApiError(grpc.StatusCode.ALREADY_EXISTS, "Requested entity already exists")


def queue_existed() -> ApiError:
    """Make FAILED_PRECONDITION, for the name of a recently deleted queue."""
    return ApiError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "The queue cannot be created because a queue with this name existed too recently.",
    )
