"""Run the embedded queue, which delivers tasks to this project's server. All arguments are those of `defer-local`."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from defer_core.spi import current

RUNSERVER = "http://127.0.0.1:8000"
"""The default address of `manage.py runserver`."""


class Command(BaseCommand):
    """`manage.py defer_local [--url http://127.0.0.1:8000] …`."""

    help = __doc__
    requires_system_checks: Any = []  # noqa: RUF012 (Django's own form)

    def run_from_argv(self, argv: list[str]) -> None:
        """Pass the arguments to `defer-local`, except those that name the settings."""
        ours = CommandParser(add_help=False, allow_abbrev=False)
        for option in ("--settings", "--pythonpath"):  # which Django has read already
            ours.add_argument(option)
        try:
            status = self.handle(arguments=ours.parse_known_args(argv[2:])[1])
        except CommandError as error:
            self.stderr.write(f"CommandError: {error}")
            status = error.returncode
        sys.exit(status)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("arguments", nargs="*")

    def handle(self, *args: Any, **options: Any) -> Any:
        try:
            from defer_local.__main__ import main
        except ImportError as error:
            raise CommandError("Install defer-local, which is the embedded queue.") from error
        arguments = [*options["arguments"], *_file(options["arguments"])]
        said = any(each.startswith(("--url", "--app", "--grpc", "-h", "--help")) for each in arguments)
        return main(arguments if said else ["--url", RUNSERVER, *arguments])


def _file(arguments: list[str]) -> list[str]:
    """Return `--file` with the queue of the settings, unless the command line names a file."""
    config = current()
    file = config.transport_options.get("file") if config.transport == "local" else None
    return [] if file is None or any(each.startswith("--file") for each in arguments) else ["--file", str(file)]
