"""Send what a crash left behind, on every database that has our table."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import Any

from django.core.management.base import BaseCommand

from defer_core.spi import add_sweep_arguments, run_sweep


class Command(BaseCommand):
    """`manage.py defer_sweep [--budget SECONDS]`."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_sweep_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if status := run_sweep(Namespace(**options), self.stdout.write):
            sys.exit(status)
