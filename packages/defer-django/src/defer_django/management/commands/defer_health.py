"""Say whether the service is healthy, and why not; the exit status is 1 if it is not."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import Any

from django.core.management.base import BaseCommand

from defer_core.spi import add_health_arguments, run_health


class Command(BaseCommand):
    """`manage.py defer_health [--late SECONDS] [--dead NUMBER] [--json]`."""

    help = __doc__
    requires_system_checks: Any = []  # noqa: RUF012 (Django's own form)

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_health_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if status := run_health(Namespace(**options), self.stdout.write):
            sys.exit(status)
