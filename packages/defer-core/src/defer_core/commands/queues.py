"""The command `queues`: its arguments, and what it does with the queues of Cloud Tasks."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping

from ..config import current
from ..config.queues import QueueSettings, declared
from ..errors import ConfigError
from ..transports.cloud.queues import QueueAdmin
from ..transports.cloud.transport import CloudTasksTransport

QUEUE_ACTIONS = ("show", "create", "update", "pause", "resume", "purge")
"""The actions of `queues`."""


def add_queue_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `queues` to a parser."""
    parser.add_argument("action", choices=QUEUE_ACTIONS)
    parser.add_argument("names", nargs="*", metavar="name", help="queues; by default all that are declared")


def run_queues(arguments: Namespace, say: Callable[[str], object] = print) -> int:
    """Do one thing with each queue. Returns the exit status. Raises ConfigError or TransportError."""
    config, action, names = current(), arguments.action, arguments.names
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
