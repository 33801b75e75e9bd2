"""Run the embedded queue, which delivers tasks to this project's server. All arguments are those of `defer-local`."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

RUNSERVER = "http://127.0.0.1:8000"
"""Where `manage.py runserver` is, unless told otherwise."""


class Command(BaseCommand):
    """`manage.py defer_local [--url http://127.0.0.1:8000] …`."""

    help = __doc__
    requires_system_checks: Any = []  # noqa: RUF012 (Django's own form)

    def run_from_argv(self, argv: list[str]) -> None:
        """What follows the name of the command goes to `defer-local`, but for what says where the settings are."""
        ours = CommandParser(add_help=False, allow_abbrev=False)
        for option in ("--settings", "--pythonpath"):  # which Django has heeded already
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
        arguments = options["arguments"]
        said = any(each.startswith(("--url", "--app", "--grpc", "-h", "--help")) for each in arguments)
        return main(arguments if said else ["--url", RUNSERVER, *arguments])
