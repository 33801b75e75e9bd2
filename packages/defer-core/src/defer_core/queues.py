"""The queues of Cloud Tasks that a project declares, and the commands that make them so; nothing does at start-up."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from .config import Config, current, nearest
from .errors import ConfigError, TransportError
from .options import QUEUE
from .transports.cloud_channel import SERVICE
from .transports.cloud_message import protobuf
from .transports.cloud_tasks import CloudTasksTransport

TIMEOUT = 30.0
"""Seconds that a call may take."""


@dataclass(frozen=True, kw_only=True)
class QueueSettings:
    """A declared queue; None leaves a setting to Cloud Tasks."""

    name: str
    """Its short name."""
    rate_per_second: float | None = None
    """Tasks that are dispatched in a second, at the most."""
    rate_max_concurrent: int | None = None
    """Tasks that run at a time, at the most."""
    retry_max_attempts: int | None = None
    """How often a task is tried in all; -1 is without limit."""
    retry_max_duration: float | None = None
    """Seconds since the first attempt after which the queue gives up."""
    retry_min_backoff: float | None = None
    """Seconds before the first repetition."""
    retry_max_backoff: float | None = None
    """Seconds that the wait between repetitions grows to."""
    retry_max_doublings: int | None = None
    """How often the wait doubles before it grows linearly."""


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


def declared(config: Config) -> dict[str, QueueSettings]:
    """The queues of the setting `queues`, by name. Raises ConfigError naming the entry."""
    return {queue.name: queue for queue in map(parse, config.queues)}


def parse(entry: str | Mapping[str, Any]) -> QueueSettings:
    """A queue from its name, or from a mapping of settings. Raises ConfigError."""
    if not isinstance(entry, str | Mapping):
        raise ConfigError(f"`queues` has the entry {entry!r}: give a queue's name, or a dict with `name`.")
    given: dict[str, Any] = {"name": entry} if isinstance(entry, str) else dict(entry)
    known = {each.name for each in fields(QueueSettings)}
    for key in given:
        if key not in known:
            raise ConfigError(f"The queue {given.get('name')!r} has no setting {key!r}{nearest(key, known)}.")
    name = given.get("name")
    if not isinstance(name, str) or not QUEUE.match(name):
        raise ConfigError(
            f"`queues` has an entry named {name!r}: give the queue's short name, of letters, digits and hyphens."
        )
    for key, value in given.items():
        if key != "name" and value is not None:
            given[key] = number(value)
            if given[key] is None:
                raise ConfigError(f"{key} of the queue {name!r} is {value!r}: it is a number.")
    return QueueSettings(**given)


def number(value: Any) -> float | None:
    """A number, or one that is written as a string (as Djangae's documentation has it); None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    return int(found) if found.is_integer() else found


class QueueAdmin:
    """Makes, changes and stops queues. Every method raises TransportError with what Cloud Tasks said."""

    def __init__(self, transport: CloudTasksTransport) -> None:
        self._transport = transport

    def create(self, queue: QueueSettings) -> bool:
        """Make a queue. Returns whether there was none; one that is there is left as it is."""
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
        """Give a queue the settings that are declared; makes it where there is none."""
        request = protobuf().UpdateQueueRequest()
        request.update_mask.paths.extend(["name", *self._fill(request.queue, queue)])
        self._call("UpdateQueue", request, request.queue.name, "queue.name")

    def pause(self, name: str) -> None:
        """Let a queue keep its tasks and dispatch none."""
        self._act("Pause", name)

    def resume(self, name: str) -> None:
        """Let a paused queue go on."""
        self._act("Resume", name)

    def purge(self, name: str) -> None:
        """Delete every task of a queue."""
        self._act("Purge", name)

    def state(self, name: str) -> str:
        """`RUNNING`, `PAUSED` or `DISABLED`."""
        queue = self._act("Get", name)
        return str(type(queue).State.Name(queue.state))

    def _act(self, what: str, name: str) -> Any:
        request = getattr(protobuf(), f"{what}QueueRequest")(name=self._transport.target.queue(name))
        return self._call(f"{what}Queue", request, request.name, "name")

    def _fill(self, message: Any, queue: QueueSettings) -> list[str]:
        """Set what is declared; returns the paths of it."""
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


# --- the command ------------------------------------------------------------------------------------------------------

ACTIONS = ("show", "create", "update", "pause", "resume", "purge")


def add_queue_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `queues` takes to a parser."""
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("names", nargs="*", metavar="name", help="queues; by default all that are declared")


def run_queues(action: str, names: Sequence[str], say: Callable[[str], object] = print) -> int:
    """Do one thing with each queue. Raises ConfigError, or TransportError. Returns the exit status."""
    config = current()
    transport, known = config.the_transport, declared(config)
    if not isinstance(transport, CloudTasksTransport):
        raise ConfigError(f"Only Cloud Tasks has queues to administer, and the transport is {transport.name!r}.")
    if not names and not known:
        raise ConfigError(
            'No queues are declared: set `queues`, for example ["default", {"name": "mail"}], or name some.'
        )
    if not names and action == "purge":
        raise ConfigError("`purge` deletes tasks: name the queues.")
    admin = QueueAdmin(transport)
    for name in names or known:
        say(f"{name}: {_do(action, name, known, admin)}")
    return 0


def _do(action: str, name: str, known: Mapping[str, QueueSettings], admin: QueueAdmin) -> str:
    if action == "show":
        return admin.state(name).lower()
    if action in ("create", "update"):
        if name not in known:
            raise ConfigError(f"The queue {name!r} is not declared in `queues`.")
        if action == "create":
            return "created" if admin.create(known[name]) else "there already"
        admin.update(known[name])
        return "updated"
    getattr(admin, action)(name)
    return {"pause": "paused", "resume": "resumed", "purge": "purged"}[action]
