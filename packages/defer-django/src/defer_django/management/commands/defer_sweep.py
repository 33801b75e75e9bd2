"""Send what a crash left behind, on every database that has our table."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from defer_core.__main__ import run_sweep


class Command(BaseCommand):
    """`manage.py defer_sweep [--budget SECONDS]`."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--budget", type=float, help="seconds after which to stop")

    def handle(self, *args: Any, **options: Any) -> None:
        if status := run_sweep(options["budget"], self.stdout.write):
            sys.exit(status)
