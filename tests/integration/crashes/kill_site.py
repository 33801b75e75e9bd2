"""A process of a site that kills itself at one point: `kill_site.py STORE POINT FILE`.

With `recover` as POINT it does what any process does later: sweep and deliver.
STORE is `django` (PostgreSQL) or `ndb` (the emulator). Tasks go to the local queue, and note in FILE that they ran.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAME = "integration.crashes.kill_site"
POINTS = (
    "before commit",
    "between commit and send",
    "between send and its answer",
    "in the sweep, before the send",
    "in the sweep, before the delete",
    "in dispatch, before the call",
    "in dispatch, after the call",
)


def note(file: str, text: str, payload: bytes) -> None:
    """The deferred function."""
    with Path(file).open("a") as notes:
        notes.write(f"{text}\n")


def die(*args: Any, **kwargs: Any) -> None:
    """Where the process ends."""
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def transaction(store: Any) -> Any:
    """A transaction of the caller's own."""
    if store.name == "ndb":
        from google.cloud import ndb

        with ndb.Client(project=os.environ["DATASTORE_PROJECT_ID"]).context(), store.transaction():
            yield
    else:
        with store.transaction():
            yield


def run(store: Any, point: str, file: str) -> None:
    """Defer a small and a large task in a transaction, and die at the point."""
    from defer_core import config, defer
    from defer_core.transports.base import Transport

    transport: Transport = config.current().the_transport
    send = transport.send
    if point == "between commit and send":
        transport.send = die  # type: ignore[method-assign]
    elif point == "between send and its answer":
        transport.send = lambda message: die(send(message))  # type: ignore[method-assign,assignment,return-value]
    elif point.startswith("in the sweep"):
        _die_in_the_sweep(store, point, file)
    elif point == "in dispatch, before the call":
        vars(sys.modules["defer_core.run.execute"])["decode_body"] = die
    elif point == "in dispatch, after the call":
        type(store).delete = die
    with transaction(store):
        defer(note, file, "small", b"")
        defer(note, file, "large", os.urandom(300_000))
        if point == "before commit":
            die()
    deliver(10.0)


def _die_in_the_sweep(store: Any, point: str, file: str) -> None:
    """The sends after the commit are lost, and then the sweep dies, too."""
    from defer_core import config, defer
    from defer_core.errors import TransportUnavailableError
    from defer_core.upkeep.sweep import sweep

    transport = config.current().the_transport
    send = transport.send

    def lost(message: Any) -> str:
        raise TransportUnavailableError

    transport.send = lost  # type: ignore[method-assign]
    with transaction(store):
        defer(note, file, "small", b"")
        defer(note, file, "large", os.urandom(300_000))
    transport.send = die if "send" in point else send  # type: ignore[method-assign]
    type(store).delete = type(store).mark = die
    later(sweep)


def later(work: Any, seconds: float = 700.0) -> None:
    """Do something when every record is due."""
    import time

    from defer_core import clock

    with clock.replaced(lambda: time.time() + seconds):
        work()


def deliver(seconds: float) -> None:
    """Deliver what is queued to the handler."""
    from defer_gae_handler import make_application
    from defer_local import Dispatcher

    dispatcher = Dispatcher(target=make_application(), concurrency=1)
    dispatcher.run_until_idle(timeout=seconds)


def recover() -> None:
    """What any process of the site does: sweep and deliver."""
    from defer_core.upkeep.sweep import sweep

    later(sweep, 2000.0)
    later(lambda: deliver(30.0), 2000.0)


def set_up(store: str) -> Any:
    """Configure this process, and return its store."""
    from defer_core import configure

    if store == "ndb":
        settings = configure(transport="local", store="ndb", store_options={"namespace": os.environ["KILL_NAMESPACE"]})
        return settings.the_store
    import django
    from django.conf import settings as django_settings

    database = {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ["SOAK_NAME"], "USER": "postgres"}
    django_settings.configure(
        SECRET_KEY="kill-" + "k" * 60,
        INSTALLED_APPS=["django.contrib.contenttypes", "defer_django"],
        DATABASES={"default": {**database, "HOST": os.environ["SOAK_HOST"]}},
        DEFER={"TRANSPORT": "local", "SWEEP_INTERVAL": 0, "AUTHENTICATORS": ["local"]},
        USE_TZ=True,
    )
    django.setup()
    from django.core.management import call_command

    from defer_core import config

    call_command("migrate", verbosity=0)
    return config.current().the_store


def main() -> None:
    """Run as the docstring says."""
    name, point, file = sys.argv[1:]
    sys.modules[NAME] = sys.modules["__main__"]
    note.__module__ = NAME
    store = set_up(name)
    if point == "recover":
        recover()
    else:
        run(store, point, file)


if __name__ == "__main__":
    main()
