"""List, show, re-run or drop dead letters, on every database that has our table."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from defer_core.errors import DeferError
from defer_core.spi import add_dead_arguments, run_dead


class Command(BaseCommand):
    """`manage.py defer_dead list|show|rerun|drop [ids | all]`."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_dead_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            run_dead(Namespace(**options), self.stdout.write)
        except (DeferError, KeyError) as error:
            raise CommandError(error.args[0]) from error
