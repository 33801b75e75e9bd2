"""Show, create, update, pause, resume or purge the queues of Cloud Tasks that the settings declare."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from defer_core.errors import DeferError
from defer_core.queues import add_queue_arguments, run_queues


class Command(BaseCommand):
    """`manage.py defer_queues show|create|update|pause|resume|purge [names]`."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_queue_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            run_queues(options["action"], options["names"], self.stdout.write)
        except DeferError as error:
            raise CommandError(error.args[0]) from error
