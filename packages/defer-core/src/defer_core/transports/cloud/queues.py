"""The queues of Cloud Tasks that a project declares, and the commands that create and change them; nothing happens at
start-up."""

from __future__ import annotations

from typing import Any

from ...config.queues import QueueSettings
from ...errors import TransportError
from .channel import SERVICE
from .message import protobuf
from .transport import CloudTasksTransport

TIMEOUT = 30.0
"""Seconds that a call may take."""
_PATHS = {
    "rate_per_second": "rate_limits.max_dispatches_per_second",
    "rate_max_concurrent": "rate_limits.max_concurrent_dispatches",
    "retry_max_attempts": "retry_config.max_attempts",
    "retry_max_duration": "retry_config.max_retry_duration",
    "retry_min_backoff": "retry_config.min_backoff",
    "retry_max_backoff": "retry_config.max_backoff",
    "retry_max_doublings": "retry_config.max_doublings",
}
"""The settings as fields of the API's Queue."""


class QueueAdmin:
    """Creates, changes and stops queues. Every method raises TransportError with what Cloud Tasks said."""

    def __init__(self, transport: CloudTasksTransport) -> None:
        self._transport = transport

    def create(self, queue: QueueSettings) -> bool:
        """Create a queue. Returns True if there was none; an existing one is left as it is."""
        request = protobuf().CreateQueueRequest(parent=self._transport.target.parent)
        self._fill(request.queue, queue)
        try:
            self._call("CreateQueue", request, request.parent)
        except TransportError as error:
            if getattr(error, "code", None) == "ALREADY_EXISTS":
                return False
            raise
        return True

    def update(self, queue: QueueSettings) -> None:
        """Give a queue the settings that are declared; create it if there is none."""
        request = protobuf().UpdateQueueRequest()
        request.update_mask.paths.extend(["name", *self._fill(request.queue, queue)])
        self._call("UpdateQueue", request, request.queue.name, "queue.name")

    def pause(self, name: str) -> None:
        """Make a queue keep its tasks and dispatch none."""
        self._act("Pause", name)

    def resume(self, name: str) -> None:
        """Make a paused queue dispatch again."""
        self._act("Resume", name)

    def purge(self, name: str) -> None:
        """Delete every task of a queue."""
        self._act("Purge", name)

    def state(self, name: str) -> str:
        """Return `RUNNING`, `PAUSED` or `DISABLED`."""
        queue = self._act("Get", name)
        return str(type(queue).State.Name(queue.state))

    def _act(self, what: str, name: str) -> Any:
        request = getattr(protobuf(), f"{what}QueueRequest")(name=self._transport.target.queue(name))
        return self._call(f"{what}Queue", request, request.name, "name")

    def _fill(self, message: Any, queue: QueueSettings) -> list[str]:
        """Set what is declared; return its paths."""
        message.name = self._transport.target.queue(queue.name)
        paths = {path: getattr(queue, key) for key, path in _PATHS.items() if getattr(queue, key) is not None}
        for path, value in paths.items():
            group, _, field = path.partition(".")
            target = getattr(message, group)
            if hasattr(getattr(target, field), "FromNanoseconds"):
                getattr(target, field).FromNanoseconds(round(value * 1e9))
            else:
                setattr(target, field, value)
        return list(paths)

    def _call(self, method: str, request: Any, resource: str, field: str = "parent") -> Any:
        import grpc

        connection = self._transport.connection()
        stub = connection.stub(SERVICE + method, type(request), protobuf().Queue)
        try:
            return stub(request, TIMEOUT, connection.metadata(resource, field))
        except grpc.RpcError as error:
            code = error.code().name
            raise TransportError(f"{method} of {resource}: {code}: {error.details()}", code=code) from error
