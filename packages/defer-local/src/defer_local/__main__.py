"""`defer-local`: deliver the tasks of the local queue until told to stop; or list, count or purge them."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

from defer_core import install_signal_handlers
from defer_core.errors import ConfigError, DeferError, MissingExtraError
from defer_core.spi import refuse_on_google_cloud

from .dispatcher import Dispatcher
from .queue import locate
from .target import WsgiApp

DEFAULT_URL = "http://127.0.0.1:8080"
"""The server of App Engine tasks from the Cloud Tasks API, unless one is given."""
STOPPING = 3.0
"""Seconds that running requests get when the command stops."""
LOOK = 0.5
"""Seconds between two looks at the process that has started this one."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Exit status 0 after Ctrl-C or SIGTERM, 1 if it cannot start, 2 for a wrong command line."""
    parser = _parser()
    arguments = parser.parse_intermixed_args(argv)
    if arguments.action != "serve":
        return _inspect(arguments)
    if arguments.names:
        parser.error(f"serve takes no names of queues: {' '.join(arguments.names)}")
    if not arguments.url and not arguments.app and arguments.grpc is None:
        parser.error("name the server: --url or --app (or serve the Cloud Tasks API: --grpc)")
    if arguments.grpc is None and (arguments.queue or arguments.issuer is not None):
        parser.error("--queue and --issuer go with --grpc")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        refuse_on_google_cloud("The local queue")
        file = locate(arguments.file)
        # an application in this process must send to the queue that is served here
        os.environ["DEFER_LOCAL_FILE"] = str(file)
        where = arguments.app or arguments.url or DEFAULT_URL
        target = load_app(arguments.app) if arguments.app else where
        with _api(file, arguments):
            dispatcher = Dispatcher(file=file, target=target, concurrency=arguments.concurrency)
            _serve(dispatcher, where, arguments.parent)
    except DeferError as error:
        _say(str(error))
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="defer-local",
        description="Deliver the tasks of the local queue, over HTTP or into a WSGI application (serve). Or list the "
        "tasks that wait, count them by queue (stats), or delete those of a queue (purge).",
    )
    parser.add_argument("action", nargs="?", default="serve", choices=["serve", "list", "stats", "purge"])
    parser.add_argument("names", nargs="*", metavar="QUEUE", help="with list, stats and purge: these queues alone")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url", help=f"the server that gets the tasks (with --grpc {DEFAULT_URL} by default)")
    where.add_argument("--app", metavar="MODULE:WSGI", help="the WSGI application that gets them, in this process")
    parser.add_argument("--file", help="the queue's file (default: DEFER_LOCAL_FILE, or .defer/queue.sqlite3)")
    parser.add_argument("--concurrency", type=int, default=8, help="requests at a time (default: %(default)s)")
    parser.add_argument("--grpc", type=int, metavar="PORT", help="also serve the Cloud Tasks API there (extra grpc)")
    parser.add_argument(
        "--queue",
        action="append",
        default=[],
        metavar="NAME",
        help="with --grpc: make this queue if it is missing",
    )
    parser.add_argument(
        "--issuer",
        type=int,
        metavar="PORT",
        help="with --grpc: serve the keys of OIDC tokens there (default: the next)",
    )
    parser.add_argument("--json", action="store_true", help="with list and stats: as JSON")
    parser.add_argument("--limit", type=int, default=100, help="with list: so many tasks, 0 for all (%(default)s)")
    parser.add_argument("--yes", action="store_true", help="with purge: ask nothing")
    parser.add_argument("--parent", type=int, metavar="PID", help="stop when this process, which started it, has ended")
    return parser


def _inspect(arguments: argparse.Namespace) -> int:
    from .inspecting import inspect, purge

    file, names = locate(arguments.file), [*arguments.names, *arguments.queue]
    try:
        if arguments.action == "purge":
            purge(file, names, agreed=arguments.yes)
        else:
            inspect(arguments.action, file, names, as_json=arguments.json, limit=max(arguments.limit, 0))
    except DeferError as error:
        _say(str(error))
        return 1
    return 0


def _api(file: Path, arguments: argparse.Namespace) -> AbstractContextManager[object]:
    """Make the Cloud Tasks server if a port is given. Raises ConfigError."""
    port, issuer_port = arguments.grpc, arguments.issuer
    if port is None:
        return nullcontext()
    try:
        from .cloud.server import CloudTasksServer
    except ImportError as error:
        raise MissingExtraError(f"--grpc needs the extra: pip install 'defer-local[grpc]' ({error}).") from error
    issuer_port = issuer_port if issuer_port is not None else port and port + 1
    server = CloudTasksServer(file=file, port=port, issuer_port=issuer_port)
    _say(f"the Cloud Tasks API is at 127.0.0.1:{server.port} (CLOUD_TASKS_EMULATOR_HOST=127.0.0.1:{server.port})")
    for name in arguments.queue:
        server.provide(name)
    _say(f"OIDC tokens are issued by {server.issuer.url} (their keys: {server.issuer.certs_url})")
    return server


def load_app(spec: str) -> WsgiApp:
    """Import the WSGI application `module:name` (`application` by default). Raises ConfigError."""
    module, _, name = spec.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in (name or "application").split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"The application {spec!r} cannot be loaded: {error}. Give it as module:name.") from error
    if not callable(found):
        raise ConfigError(f"The application {spec!r} is {found!r}, which cannot be called.")
    return found  # type: ignore[no-any-return]


def _serve(dispatcher: Dispatcher, where: str, parent: int | None) -> None:
    stopped = threading.Event()

    def stop(number: int, frame: object) -> None:
        if number == signal.SIGINT and stopped.is_set():  # SIGTERM may follow it, from the parent process
            os._exit(128 + number)
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    install_signal_handlers(signal.SIGINT, signal.SIGTERM)  # so that shards of an application in this process hand over
    dispatcher.start()
    _say(f"delivering {dispatcher.queue.file.path} to {where}, {dispatcher.concurrency} at a time. Ctrl-C stops.")
    while not stopped.wait(LOOK):
        if parent not in (None, os.getppid()):
            _say(f"the process {parent}, which started this one, has ended.")
            break
    dispatcher.stop(STOPPING)
    _say("stopped.")


def _say(text: str) -> None:
    with suppress(OSError):  # the terminal may be closed
        print(f"defer-local: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
