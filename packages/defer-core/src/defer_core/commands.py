"""The commands `sweep`, `dead` and `queues`: their arguments, and what they do.

`python -m defer_core` has all three; a framework gives them names among its own (`manage.py defer_sweep`). `say` gets
each line of their output.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone

from . import clock
from .config import current
from .config.queues import QueueSettings, declared
from .errors import ConfigError, DeferError
from .record import State, TaskRecord
from .stores.base import TaskStore
from .text import one_line, printable
from .transports.cloud.queues import QueueAdmin
from .transports.cloud.transport import CloudTasksTransport
from .upkeep import dead_letters
from .upkeep.sweep import sweep
from .wire.describe import describe

QUEUE_ACTIONS = ("show", "create", "update", "pause", "resume", "purge")
"""The actions of `queues`."""


# --- sweep ------------------------------------------------------------------------------------------------------------


def add_sweep_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `sweep` to a parser."""
    parser.add_argument("--budget", type=float, help="seconds after which to stop")


def run_sweep(arguments: Namespace, say: Callable[[str], object] = print) -> int:
    """Sweep, and say what was done and what is left. Returns the exit status."""
    report = sweep(budget=arguments.budget)
    say(f"defer sweep: {report}")
    for store in current().every_store():
        where = f"{store.name} {store.alias}".strip()
        late, oldest = store.count(State.PENDING, due=clock.now()), store.oldest_pending()
        age = f" (the oldest for {clock.now() - oldest:.0f} s)" if late and oldest is not None else ""
        say(f"  {where}: late {late}{age}, failing {store.count(State.FAILING)}, dead {store.count(State.DEAD)}")
    return 1 if report.counts["failed"] else 0


# --- dead letters -----------------------------------------------------------------------------------------------------


def add_dead_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of `dead` to a parser."""
    parser.add_argument("action", nargs="?", default="list", choices=["list", "show", "rerun", "drop"])
    parser.add_argument("ids", nargs="*", metavar="id", help="record ids; `all` for every dead letter")


def run_dead(arguments: Namespace, say: Callable[[str], object] = print) -> int:
    """List, show, re-run or drop dead letters of every configured store. Returns the exit status.

    Raises KeyError for an id that is not given or not there, and DeferError for those that cannot be re-run, once
    the others have been.
    """
    stores = current().every_store()
    every = ((record, store) for store in stores for record in dead_letters.dead_letters(store))
    if arguments.action == "list":
        for record, _ in every:
            say(_line(record))
        return 0
    if not arguments.ids:
        raise KeyError(f"dead {arguments.action} needs the ids of dead letters, or `all`.")
    chosen = (
        [(record.id, store) for record, store in every]
        if arguments.ids == ["all"]
        else [_located(each, stores) for each in arguments.ids]
    )
    failures = []
    for record_id, store in chosen:
        try:
            _act(arguments.action, record_id, store, say)
        except (DeferError, KeyError) as error:
            failures.append(f"{record_id}: {error.args[0]}")
    if failures:
        raise DeferError("\n".join(failures))
    return 0


def _located(record_id: str, stores: Sequence[TaskStore]) -> tuple[str, TaskStore]:
    for store in stores:
        if store.get(record_id) is not None:
            return record_id, store
    raise KeyError(f"There is no dead letter {record_id}.")


def _act(action: str, record_id: str, store: TaskStore, say: Callable[[str], object]) -> None:
    record = dead_letters.find(record_id, store)
    if action == "show":
        span = f"{_time(record.first_attempt)} to {_time(record.last_attempt)}"
        tries = "tries to send it" if record.reason in ("exhausted", "held") else "attempts"
        say(f"{_line(record)}\n  {describe(record, current().secrets)}\n  {tries} {record.attempts}, {span}")
        say(f"  verified {record.verified}, {len(record.envelope)} bytes\n{printable(record.last_error)}")
    elif action == "rerun":
        say(f"{record_id}: {dead_letters.rerun(record_id, store).status}")
    else:
        dead_letters.drop(record_id, store)
        say(f"{record_id}: dropped")


def _line(record: TaskRecord) -> str:
    error = record.last_error.strip().rpartition("\n")[2]
    what = record.label or record.routing.name or "?"
    columns = (record.id, _time(record.last_attempt), record.reason, record.routing.queue, what, error)
    return "  ".join(map(one_line, columns))


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


# --- the queues of Cloud Tasks ----------------------------------------------------------------------------------------


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
