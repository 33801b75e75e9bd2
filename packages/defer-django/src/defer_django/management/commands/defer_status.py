"""Show the queues, the stores, failing tasks and iterations, once or again and again."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from defer_core.errors import ConfigError
from defer_core.spi import add_status_arguments, run_status


class Command(BaseCommand):
    """`manage.py defer_status [--watch [SECONDS]] [--json] [--limit NUMBER]`."""

    help = __doc__
    requires_system_checks: Any = []  # noqa: RUF012 (Django's own form)

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_status_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            run_status(Namespace(**options), self.stdout.write)
        except ConfigError as error:
            raise CommandError(str(error)) from error
