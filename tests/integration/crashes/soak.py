"""Transactional defers under `kill -9`: producers, a server and sweeps on PostgreSQL, one killed every little while.

`python tests/integration/crashes/soak.py --tasks 20000 --processes 4` prints what committed and what ran. The database
holds the business rows and the outbox; the queue is the local one; tasks are delivered through the handler.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2]
NAME = "integration.crashes.soak"
LARGE = 200_000
"""Bytes of the larger payloads, which are claimed."""


def execute(business_id: str, payload: bytes) -> None:
    """The deferred function: notes that it ran."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO soak_ran (id, times) VALUES (%s, 1) ON CONFLICT (id) DO UPDATE SET times = soak_ran.times + 1",
            [business_id],
        )


class _RollbackError(Exception):
    pass


# --- the processes ----------------------------------------------------------------------------------------------------


def produce(goal: int, seed: int) -> None:
    """Commit business rows with their tasks, and roll some back, until there are `goal` rows in all."""
    from django.db import connection, transaction

    from defer_core import defer

    chance = random.Random(seed)
    made = 0
    while made % 20 or _count("soak_business") < goal:
        made += 1
        business_id = uuid.uuid4().hex
        payload = os.urandom(LARGE) if chance.random() < 0.02 else b"small"
        with suppress(_RollbackError), transaction.atomic():
            with connection.cursor() as cursor:
                table = "soak_business" if chance.random() < 0.7 else "soak_rolled_back"
                if table == "soak_business":
                    cursor.execute("INSERT INTO soak_business (id) VALUES (%s)", [business_id])
            defer(execute, business_id, payload)
            if table == "soak_rolled_back":
                raise _RollbackError
            if chance.random() < 0.1:
                with suppress(_RollbackError), transaction.atomic():
                    defer(execute, f"inner-{business_id}"[:32], payload)
                    raise _RollbackError


def serve() -> None:
    """Deliver what is queued to the handler, in this process, and sweep."""
    from defer_core.upkeep.sweep import sweep
    from defer_gae_handler import make_application
    from defer_local import Dispatcher

    with Dispatcher(target=make_application(), concurrency=4):
        while True:
            time.sleep(0.5)
            sweep(budget=2)


def _count(table: str) -> int:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table}")
        return int(cursor.fetchone()[0])


def set_up() -> None:
    """Settings and apps of a process."""
    import django
    from django.conf import settings

    settings.configure(
        SECRET_KEY="soak-" + "k" * 60,
        INSTALLED_APPS=["django.contrib.contenttypes", "defer_django"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": os.environ["SOAK_NAME"],
                "USER": "postgres",
                "HOST": os.environ["SOAK_HOST"],
            }
        },
        DEFER={"TRANSPORT": "local", "SWEEP_GRACE": 2, "SWEEP_INTERVAL": 1, "AUTHENTICATORS": ["local"], "GRACE": 30},
        USE_TZ=True,
    )
    django.setup()


# --- the soak ---------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Report:
    """What a soak came to."""

    committed: set[str] = field(default_factory=set)
    """Business ids that committed."""
    ran: dict[str, int] = field(default_factory=dict)
    """How often each id ran."""
    kills: int = 0
    """Processes killed."""
    left: int = 0
    """Records left in the store."""
    seconds: float = 0.0
    """How long it took."""

    def __str__(self) -> str:
        twice = sum(times > 1 for times in self.ran.values())
        lost, extra = len(self.committed - self.ran.keys()), len(self.ran.keys() - self.committed)
        return (
            f"{len(self.committed)} committed, {len(self.ran)} ran ({twice} of them more than once), {lost} lost, "
            f"{extra} ran without a commit; {self.kills} kills, {self.left} records left, {self.seconds:.0f} s"
        )


def soak(*, tasks: int, processes: int, host: str, name: str, seed: int, every: float = 1.0) -> Report:
    """Run producers and a server until `tasks` have committed, killing one process every `every` seconds; then let the
    rest settle, and report."""
    chance, report, started = random.Random(seed), Report(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        environ = {**os.environ, "SOAK_HOST": host, "SOAK_NAME": name, "DEFER_LOCAL_FILE": f"{folder}/queue.sqlite3"}
        environ["PYTHONPATH"] = f"{TESTS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        _as(["make"], environ).wait()
        roles = [["produce", str(tasks), str(seed * 100 + index)] for index in range(processes)] + [["serve"]]
        running = [_as(role, environ) for role in roles]
        try:
            while any(process.poll() is None for process in running[:-1]):
                time.sleep(every)
                report.kills += _kill_one(chance, roles, running, environ)
            _settle(environ)
        finally:
            for process in running:
                process.kill()
                process.wait()
        _read(report, host, name)
    report.seconds = time.monotonic() - started
    return report


def _as(role: list[str], environ: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-W", "ignore", __file__, "as", *role], env=environ)


def _kill_one(
    chance: random.Random, roles: list[list[str]], running: list[subprocess.Popen[bytes]], environ: dict[str, str]
) -> int:
    """Kill a process where it stands, and start another in its place."""
    at = chance.randrange(len(roles))
    if running[at].poll() is not None:
        return 0
    running[at].send_signal(signal.SIGKILL)
    running[at].wait()
    roles[at] = [*roles[at][:-1], str(int(roles[at][-1]) + 7)] if roles[at][0] == "produce" else roles[at]
    running[at] = _as(roles[at], environ)
    return 1


def _settle(environ: dict[str, str]) -> None:
    process = _as(["settle"], environ)
    if process.wait(timeout=240):
        raise RuntimeError("The soak did not settle.")


def settle() -> None:
    """Wait until no record is left that may still be sent, and everything committed has run."""
    until = time.monotonic() + 200
    while time.monotonic() < until:
        if not _missing() and not _pending():
            return
        time.sleep(0.5)
    sys.exit(f"{_missing()} have not run, {_pending()} records are pending")


def _missing() -> int:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM soak_business b WHERE NOT EXISTS (SELECT 1 FROM soak_ran r WHERE r.id = b.id)"
        )
        return int(cursor.fetchone()[0])


def _pending() -> int:
    from defer_core.record import State
    from defer_django.stores import task_store

    store = task_store()
    return store.count(State.PENDING) + store.count(State.SENT)


def _read(report: Report, host: str, name: str) -> None:
    import psycopg

    with psycopg.connect(host=host, dbname=name, user="postgres") as connection:
        report.committed = {row[0] for row in connection.execute("SELECT id FROM soak_business").fetchall()}
        report.ran = dict(connection.execute("SELECT id, times FROM soak_ran").fetchall())
        row = connection.execute("SELECT count(*) FROM defer_django_deferredtask").fetchone()
        report.left = row[0] if row else -1


def make() -> None:
    """The tables."""
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS soak_business, soak_ran")
        cursor.execute("DELETE FROM defer_django_deferredtask")
        cursor.execute("CREATE TABLE soak_business (id text PRIMARY KEY)")
        cursor.execute("CREATE TABLE soak_ran (id text PRIMARY KEY, times int NOT NULL)")


def main() -> int:
    """Returns the exit status."""
    if sys.argv[1:2] == ["as"]:
        role, *arguments = sys.argv[2:]
        # tasks name this module by the name that every process knows it under
        sys.modules[NAME] = sys.modules["__main__"]
        execute.__module__ = NAME
        set_up()
        {"make": make, "serve": serve, "settle": settle, "produce": lambda: produce(*map(int, arguments))}[role]()
        return 0
    sys.path.insert(0, str(TESTS))
    import services

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    settings = services.postgres_settings("soak")
    create(str(settings["HOST"]), "defer_soak")
    report = soak(
        tasks=given.tasks, processes=given.processes, host=settings["HOST"], name="defer_soak", seed=given.seed
    )
    print(report)
    return int(report.committed != report.ran.keys() or len(report.committed) < given.tasks)


def create(host: str, name: str) -> None:
    import psycopg

    with psycopg.connect(host=host, dbname="postgres", user="postgres", autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            connection.execute(f"CREATE DATABASE {name}")


if __name__ == "__main__":
    sys.exit(main())
