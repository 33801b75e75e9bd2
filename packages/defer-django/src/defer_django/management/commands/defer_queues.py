"""Create, update, pause, resume, purge or show the queues of Cloud Tasks that the settings declare."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from defer_core.errors import DeferError
from defer_core.spi import add_queue_arguments, run_queues


class Command(BaseCommand):
    """`manage.py defer_queues create|update|pause|resume|purge|show [names]`."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_queue_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            run_queues(Namespace(**options), self.stdout.write)
        except DeferError as error:
            raise CommandError(str(error)) from error
