"""The commands `python -m defer_core sweep`, `… status`, `… health`, `… dead` and `… queues`, configured by `DEFER_*`
variables, or by the module that `--app` names: `python -m defer_core --app shop.main sweep`."""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence

from . import commands
from .config import current
from .errors import ConfigError, DeferError
from .text import printable

Command = tuple[Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int], str]

COMMANDS: dict[str, Command] = {
    "sweep": (
        commands.add_sweep_arguments,
        commands.run_sweep,
        "send what a crash left, requeue what stalled",
    ),
    "status": (commands.add_status_arguments, commands.run_status, "the queues, the stores, and what fails"),
    "dead": (commands.add_dead_arguments, commands.run_dead, "the dead letters"),
    "queues": (commands.add_queue_arguments, commands.run_queues, "the declared queues of Cloud Tasks"),
    "health": (
        commands.add_health_arguments,
        commands.run_health,
        "whether the service is healthy",
    ),
}
"""What adds the arguments of a command, what runs it, and what it is for."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0 done, 1 failed (the reason is on stderr)."""
    parser = argparse.ArgumentParser(prog="python -m defer_core", description=__doc__)
    add_commands(parser)
    return run(parser.parse_args(argv))


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add `--app` and the commands to a parser."""
    parser.add_argument(
        "--app", metavar="MODULE[:NAME]", help="import this first: it calls configure(), or its function NAME does"
    )
    subparsers = parser.add_subparsers(dest="command", required=True)
    for name, (add_arguments, _, said) in COMMANDS.items():
        add_arguments(subparsers.add_parser(name, help=said))


def run(arguments: argparse.Namespace) -> int:
    """Run a parsed command on every configured store. Returns the exit status."""
    try:
        if arguments.app:
            load(arguments.app)
        config = current()
        if not config.every_store() and (arguments.command != "queues" or config.transport is None):
            raise ConfigError(
                "No store is configured: name the module that calls configure(), as in "
                f"`python -m defer_core --app shop.main {arguments.command}`, or set DEFER_TRANSPORT or DEFER_STORE."
            )
        _, run_it, _ = COMMANDS[arguments.command]
        return run_it(arguments)
    except (DeferError, KeyError) as error:
        print(printable(error.args[0]), file=sys.stderr)
        return 1


def load(spec: str) -> None:
    """Import `module`, or `module:name`, which is called if it takes no arguments (a WSGI application does). Raises
    ConfigError if it cannot be found."""
    module, _, name = spec.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
        for part in filter(None, name.split(".")):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"--app {spec!r} cannot be loaded: {error}. Give it as module, or module:name.") from error
    if name and callable(found) and _takes_nothing(found):
        found()


def _takes_nothing(func: Callable[..., object]) -> bool:
    try:
        inspect.signature(func).bind()
    except (TypeError, ValueError):
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
