"""Show what defer does, with real processes: a web server, a queue, and a client. Exit status 1 if a check fails."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from tour.processes import SERVERS, Dispatcher, Server


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000, help="orders to walk over (default: %(default)s)")
    parser.add_argument("--cloud", action="store_true", help="over the Cloud Tasks API, served by `defer-local --grpc`")
    parser.add_argument("--server", choices=SERVERS, default="waitress", help="what serves it (default: %(default)s)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="defer-shop-") as folder:
        prepare(folder, cloud=options.cloud)
        return run(Path(folder), options)


def prepare(folder: str, *, cloud: bool) -> None:
    """A new shop, with empty tables."""
    os.environ |= {"SHOP_DATA": folder, "DJANGO_RUNSERVER_HIDE_WARNING": "true"}
    if cloud:
        from tour import emulators

        emulators.choose()
    os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)


def run(data: Path, options: argparse.Namespace) -> int:
    """All scenes, and the closing table."""
    from tour import bookkeeping, cloud_scenes, emulators, honesty, scenes
    from tour.display import display

    began, checks = time.monotonic(), []
    plays: list[scenes.Scene] = [
        scenes.small_task,
        scenes.large_task,
        scenes.instance,
        scenes.transactions,
        scenes.retries,
        scenes.dead_letter,
        bookkeeping.iteration,
    ]
    if options.cloud:
        plays += cloud_scenes.plays()
    datastore = emulators.start_datastore(data) if options.cloud else None
    server = Server(data, options.server)
    dispatcher = Dispatcher(server.url, data)
    try:
        if options.cloud:
            emulators.make_queues(dispatcher)
        with display() as view:
            stage = scenes.Stage(display=view, server=server, dispatcher=dispatcher, rows=options.rows)
            for play in plays:
                view.scene(play.__doc__ or "")
                checks += play(stage)
    finally:
        for process in (dispatcher, server, datastore):
            if process is not None:
                process.stop()
    checks += honesty.check(server.output(), dispatcher.output(), stage.failing, "".join(stage.cut))
    view.table(checks, time.monotonic() - began)
    if all(check.held for check in checks):
        return 0
    print(f"\nThe server's last words:\n{server.output()[-4000:]}\nThe dispatcher's:\n{dispatcher.output()[-2000:]}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
