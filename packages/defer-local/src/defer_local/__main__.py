"""`defer-local`: deliver the tasks of the local queue until told to stop."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from defer_core.config import refuse_on_google_cloud
from defer_core.errors import ConfigError, DeferError
from defer_core.stopping import install_signal_handlers

from .dispatcher import Dispatcher
from .queue import locate
from .target import WsgiApp

DEFAULT_URL = "http://127.0.0.1:8080"
"""Where App Engine tasks of the Cloud Tasks API go where the command is told of no server."""
STOPPING = 3.0
"""Seconds that running requests get when the command is told to stop."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Exit status 0 after Ctrl-C or SIGTERM, 1 where it cannot start, 2 for a wrong command line."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if not arguments.url and not arguments.app and arguments.grpc is None:
        parser.error("say where tasks go: --url or --app (or serve the Cloud Tasks API: --grpc)")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        refuse_on_google_cloud("The local queue")
        file = locate(arguments.file)
        # an application in this process is to send to the queue that is served here
        os.environ["DEFER_LOCAL_FILE"] = str(file)
        where = arguments.app or arguments.url or DEFAULT_URL
        target = load_app(arguments.app) if arguments.app else where
        with _api(file, arguments.grpc):
            _serve(Dispatcher(file=file, target=target, concurrency=arguments.concurrency), where)
    except DeferError as error:
        _say(str(error))
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="defer-local", description="Deliver the tasks of the local queue, over HTTP or into a WSGI application."
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url", help=f"the server that gets the tasks (with --grpc {DEFAULT_URL} by default)")
    where.add_argument("--app", metavar="MODULE:WSGI", help="the WSGI application that gets them, in this process")
    parser.add_argument("--file", help="the queue's file (default: DEFER_LOCAL_FILE, or .defer/queue.sqlite3)")
    parser.add_argument("--concurrency", type=int, default=8, help="requests at a time (default: %(default)s)")
    parser.add_argument("--grpc", type=int, metavar="PORT", help="also serve the Cloud Tasks API there (extra grpc)")
    return parser


def _api(file: Path, port: int | None) -> AbstractContextManager[object]:
    """The Cloud Tasks server, where a port is given. Raises ConfigError."""
    if port is None:
        return nullcontext()
    try:
        from .cloud.server import CloudTasksServer
    except ImportError as error:
        raise ConfigError(f"--grpc needs the extra: pip install 'defer-local[grpc]' ({error}).") from error
    server = CloudTasksServer(file=file, port=port)
    _say(f"the Cloud Tasks API is at 127.0.0.1:{server.port} (CLOUD_TASKS_EMULATOR_HOST=127.0.0.1:{server.port})")
    return server


def load_app(spec: str) -> WsgiApp:
    """The WSGI application of `module:name` (`application` by default). Raises ConfigError."""
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


def _serve(dispatcher: Dispatcher, where: str) -> None:
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    install_signal_handlers(signal.SIGINT, signal.SIGTERM)  # shards of an application in this process hand over
    dispatcher.start()
    _say(f"delivering {dispatcher.queue.file.path} to {where}, {dispatcher.concurrency} at a time. Ctrl-C stops.")
    stopped.wait()
    dispatcher.stop(STOPPING)
    _say("stopped.")


def _say(text: str) -> None:
    print(f"defer-local: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
