"""Run the embedded queue, which delivers tasks to this project's server. All arguments are those of `defer-local`."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser


class Command(BaseCommand):
    """`manage.py defer_local [--url http://127.0.0.1:8000] …`."""

    help = __doc__
    requires_system_checks: Any = []  # noqa: RUF012 (Django's own form)

    def run_from_argv(self, argv: list[str]) -> None:
        """What follows the name of the command goes to `defer-local` as it is."""
        sys.exit(self.handle(arguments=argv[2:]))

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("arguments", nargs="*")

    def handle(self, *args: Any, **options: Any) -> Any:
        try:
            from defer_local.__main__ import main
        except ImportError as error:
            raise CommandError("Install defer-local, which is the embedded queue.") from error
        return main(options["arguments"])
