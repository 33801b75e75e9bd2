"""The errors that the service answers, in its own words."""

from __future__ import annotations

import grpc


class ApiError(Exception):
    """An RPC that fails with a status code and a message."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message: str) -> ApiError:
    """INVALID_ARGUMENT."""
    return ApiError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str = "Requested entity was not found.") -> ApiError:
    """NOT_FOUND."""
    return ApiError(grpc.StatusCode.NOT_FOUND, message)


def unimplemented(what: str) -> ApiError:
    """UNIMPLEMENTED: what this server does not do it says."""
    return ApiError(grpc.StatusCode.UNIMPLEMENTED, f"The local Cloud Tasks server does not support {what}.")


def no_such_queue() -> ApiError:
    """NOT_FOUND, for a queue that is not there, or not any more."""
    return not_found(
        "Queue does not exist. If you just created the queue, wait at least a minute for the queue to initialize."
    )


def task_is_over() -> ApiError:
    """NOT_FOUND, for a task that was there."""
    return not_found(
        "The task no longer exists, though a task with this name existed recently. "
        "The task either successfully completed or was deleted."
    )


def queue_exists() -> ApiError:
    """ALREADY_EXISTS, for a queue."""
    return ApiError(grpc.StatusCode.ALREADY_EXISTS, "Queue already exists")


def task_exists() -> ApiError:
    """ALREADY_EXISTS, for a task, or for the name of a recent one."""
    return ApiError(grpc.StatusCode.ALREADY_EXISTS, "Requested entity already exists")


def queue_existed() -> ApiError:
    """FAILED_PRECONDITION, for a queue whose name was that of a recent one."""
    return ApiError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "The queue cannot be created because a queue with this name existed too recently.",
    )
