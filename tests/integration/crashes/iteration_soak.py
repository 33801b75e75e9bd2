"""An iteration under `kill -9`: workers on PostgreSQL, one of them killed every little while.

`python tests/integration/crashes/iteration_soak.py --rows 1000000 --shards 16` prints what became of the rows. Rows,
iteration and task records are in the database, the queue is the local one, and tasks are delivered through the handler.
With `--work 600` the rows are those of a hundred tenants, one after the other, and take 600 s in all, by Zipf's
law: most of it is in the first shard, which gives parts of it away unless there is `--no-rebalance`.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[2]
PROGRAM = "import sys; from integration.crashes.iteration_soak import process; process(*sys.argv[1:])"


def callback(row: Any) -> None:
    """Called for every row: an increment, which is wrong as soon as it is made twice."""
    from django.db.models import F
    from testapp.models import Row

    from defer_iteration import current_shard

    if "SOAK_WORK" in os.environ:
        take_time(row.number)
    Row.objects.filter(pk=row.pk).update(hits=F("hits") + 1)
    shard = current_shard()
    assert shard is not None
    shard.count("passed")
    shard.count(f"of shard {shard.index}")


TENANTS = 100
PARTS = [tenant**-1.2 for tenant in range(1, TENANTS + 1)]
"""How much of the work each tenant has, by Zipf's law."""
MOMENT = 0.005
"""Seconds of work that are worth a sleep of their own."""
_owed = 0.0


@cache
def work_and_rows() -> tuple[float, int]:
    """How many seconds the rows take in all, and how many they are."""
    work, rows = os.environ["SOAK_WORK"].split()
    return float(work), int(rows)


def take_time(number: int) -> None:
    """Take as long as the row with this number, from 1 on, takes: by its tenant."""
    global _owed
    work, rows = work_and_rows()
    _owed += work * PARTS[(number - 1) * TENANTS // rows] / sum(PARTS) / rows * TENANTS
    if _owed >= MOMENT:
        time.sleep(_owed)
        _owed = 0.0


def finalize() -> None:
    """Notes what has been counted."""
    from testapp.models import Tag

    from defer_iteration import current_iteration

    iteration = current_iteration()
    assert iteration is not None
    Tag.objects.create(name=str(iteration.counters["passed"]))


# --- the processes ----------------------------------------------------------------------------------------------------


def process(role: str, *arguments: str) -> None:
    """The life of one process."""
    logging.getLogger("defer").setLevel(logging.ERROR)  # a kill is no news here
    set_up()
    {"make": make, "work": work}[role](*map(int, arguments))


def set_up() -> None:
    """Settings and apps of a process."""
    import django
    from django.conf import settings

    settings.configure(
        SECRET_KEY="soak-" + "k" * 60,
        INSTALLED_APPS=["django.contrib.contenttypes", "defer_django", "defer_iteration", "testapp"],
        MIGRATION_MODULES={"contenttypes": None, "testapp": None},
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": os.environ["SOAK_NAME"],
                "USER": "postgres",
                "HOST": os.environ["SOAK_HOST"],
            }
        },
        DEFER={"TRANSPORT": "local", "SWEEP_GRACE": 30, "SWEEP_INTERVAL": 1, "AUTHENTICATORS": ["local"]},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
    )
    django.setup()


def make(rows: int, shards: int, atomic: int, rebalance: int) -> None:
    """Tables, rows, and the call."""
    from django.core.management import call_command
    from django.db import connection
    from testapp.models import Row

    from defer_iteration import defer_iteration_with_finalize

    call_command("migrate", run_syncdb=True, verbosity=0)
    call_command("flush", interactive=False, verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO testapp_row (number, hits, done) SELECT n, 0, false FROM generate_series(1, %s) n", [rows]
        )
    defer_iteration_with_finalize(
        Row.objects.all(),
        callback,
        finalize,
        _shards=shards,
        _atomic=bool(atomic),
        _delete_marker=False,
        _rebalance=bool(rebalance),
    )


def work(checkpoint_milliseconds: int) -> None:
    """Deliver what is queued to the handler, one task at a time, and sweep."""
    from defer_core.upkeep.sweep import sweep
    from defer_gae_handler import make_application
    from defer_iteration.protocol import timing
    from defer_local import Dispatcher

    timing.CHECKPOINT_EVERY = checkpoint_milliseconds / 1000
    with Dispatcher(target=make_application(), concurrency=1):
        while True:
            time.sleep(0.5)
            sweep(budget=2)


# --- the soak ---------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Report:
    """What became of the rows."""

    hits: Counter[int] = field(default_factory=Counter)
    """How many rows were incremented so many times."""
    state: str = ""
    """The state of the iteration at the end."""
    shards: list[int] = field(default_factory=list)
    """Rows of each shard."""
    generations: int = 0
    """Tasks that worked on shards, but the first of each."""
    fences: int = 0
    """Attempts at shards."""
    finalized: list[int] = field(default_factory=list)
    """What `finalize` found counted, each time that it ran."""
    kills: int = 0
    """Workers killed."""
    seconds: float = 0.0
    """How long it took."""

    def __str__(self) -> str:
        passed = ", ".join(f"{number} {times} times" for times, number in sorted(self.hits.items()))
        return (
            f"{sum(self.hits.values())} rows: {passed}; {len(self.shards)} shards of {min(self.shards)} to "
            f"{max(self.shards)} rows; {self.fences} attempts, {self.generations} successors; {self.kills} kills; "
            f"finalized {len(self.finalized)} times with {self.finalized} counted; {self.state} in {self.seconds:.0f} s"
        )


def soak(
    *,
    rows: int,
    shards: int,
    host: str,
    name: str,
    seed: int,
    atomic: bool = True,
    rebalance: bool = True,
    work: float = 0.0,
    workers: int = 4,
    every: float = 2.0,
    checkpoint: float = 3.0,
    patience: float = 240.0,
) -> Report:
    """Let `workers` processes run an iteration, one of them killed every `every` seconds (or later, when a checkpoint
    has been written since the last kill), and report. Raises TimeoutError if it is not done in `patience` seconds."""
    chance, report, started, before = random.Random(seed), Report(), time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder:
        environ = {**os.environ, "SOAK_HOST": host, "SOAK_NAME": name, "DEFER_LOCAL_FILE": f"{folder}/queue.sqlite3"}
        environ["PYTHONPATH"] = f"{TESTS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        if work:
            environ["SOAK_WORK"] = f"{work} {rows}"
        if start(environ, "make", rows, shards, int(atomic), int(rebalance)).wait(patience):
            raise RuntimeError("The tables could not be made.")
        made = time.monotonic()
        running = [start(environ, "work", int(checkpoint * 1000)) for _ in range(workers)]
        try:
            while read(report, host, name).state != "done":
                if time.monotonic() > started + patience:
                    raise TimeoutError(str(report))
                time.sleep(every)
                if sum(report.shards) == before:  # on a busy machine, a worker may not even have started
                    continue
                before = sum(report.shards)
                at = chance.randrange(workers)
                running[at].send_signal(signal.SIGKILL)
                running[at].wait()
                running[at] = start(environ, "work", int(checkpoint * 1000))
                report.kills += 1
        finally:
            for each in running:
                each.kill()
                each.wait()
    report.seconds = time.monotonic() - made
    return report


def start(environ: dict[str, str], *arguments: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", PROGRAM, *map(str, arguments)], env=environ)


def read(report: Report, host: str, name: str) -> Report:
    """Ask the database how far it has come."""
    import psycopg

    with psycopg.connect(host=host, dbname=name, user="postgres") as connection:
        ask = connection.execute
        report.state = str(ask("SELECT state FROM defer_iteration_iteration").fetchall()[0][0])
        shards = ask("SELECT rows, generation, fence FROM defer_iteration_shard").fetchall()
        report.shards = [rows for rows, _, _ in shards]
        report.generations = sum(generation for _, generation, _ in shards)
        report.fences = sum(fence for _, _, fence in shards)
        if report.state == "done":
            report.hits = Counter(dict(ask("SELECT hits, count(*) FROM testapp_row GROUP BY hits").fetchall()))
            report.finalized = [int(text) for (text,) in ask("SELECT name FROM testapp_tag").fetchall()]
    return report


def main() -> int:
    """Returns the exit status."""
    sys.path.insert(0, str(TESTS))
    import services
    from integration.crashes.soak import create

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--every", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--not-atomic", action="store_true")
    parser.add_argument("--work", type=float, default=0.0, help="seconds that the rows take in all")
    parser.add_argument("--no-rebalance", action="store_true")
    given = parser.parse_args()
    host = str(services.postgres_settings("soak")["HOST"])
    create(host, "defer_iteration_soak")
    report = soak(
        rows=given.rows, shards=given.shards, workers=given.workers, every=given.every, seed=given.seed,
        atomic=not given.not_atomic, rebalance=not given.no_rebalance, work=given.work, host=host,
        name="defer_iteration_soak", patience=7200,
    )  # fmt: skip
    print(report)
    exact = min(report.hits) >= 1 if given.not_atomic else report.hits == {1: given.rows}
    return int(not exact or set(report.finalized) != {given.rows} or sum(report.shards) != given.rows)


if __name__ == "__main__":
    sys.exit(main())
