"""A transactional defer beside a plain `transaction.on_commit` of the same call, which a crash after the commit loses.

Each transaction writes a row of the site's own and defers one task on Cloud Tasks (a small server on the loopback, in
a process of its own). Writes are the rows' statements, the site's too; the deletes of ten sent records ride on a later
insert.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc

from ._figures import Figure
from .iteration import database, set_up
from .send import KEYS, PARENT, a_dict, gapic, served, us, wall

ROUNDS, TRANSACTIONS = 9, 100
DATABASES = ("SQLite", "PostgreSQL")


def task(order: int) -> None:
    """What is deferred; nothing runs it."""


def rows() -> list[Figure]:
    """The figures, each database in a process of its own."""
    import multiprocessing

    found: list[Figure] = []
    for name in DATABASES:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found += pool.apply(measured, (name,))
    return found


def measured(name: str) -> list[Figure]:
    """The figures of one database."""
    with database(name) as settings, served() as port:
        set_up(settings)
        ways = transactions(f"127.0.0.1:{port}")
        counts = [counted(way) for way in ways[:2]]
        ours, plain, google = timed(*ways)
    what = f"{{}} of a transaction, {name}: defer(_transactional=True) / on_commit"
    writes, calls = ([count[kind] for count in counts] for kind in ("writes", "calls"))
    return [
        (what.format("writes"), per(writes[1]), per(writes[0]), writes[0] / writes[1], "≤ 3"),
        (what.format("calls of the queue"), per(calls[1]), per(calls[0]), calls[0] / calls[1], "≤ 1"),
        (what.format("time"), us(plain), us(ours), ours / plain, ""),
        (what.format("time") + " with Google's client", us(google), us(ours), ours / google, ""),
    ]


def transactions(where: str) -> tuple[Callable[[], None], ...]:
    """Ours, the plain one, and the plain one with Google's client."""
    from django.contrib.contenttypes.models import ContentType
    from django.db import transaction

    from defer_core import configure, defer
    from defer_core.transports.cloud.transport import CloudTasksTransport

    sender = CloudTasksTransport(project="p", location="l", emulator_host=where)
    configure(transport=sender, store="django", keys=KEYS, sweep_interval=0)
    client = gapic(grpc.insecure_channel(where))
    numbers = iter(range(10**9))

    def ours(order: int) -> None:
        defer(task, order, _transactional=True)

    def plain(order: int) -> None:
        transaction.on_commit(lambda: defer(task, order, _small_task=True))

    def google(order: int) -> None:
        transaction.on_commit(lambda: client.create_task(parent=PARENT, task=a_dict(b"x" * 200)))

    def transact(enqueue: Callable[[int], None]) -> Callable[[], None]:
        def body() -> None:
            with transaction.atomic():
                row = ContentType(app_label="shop", model=str(next(numbers)))
                row.save(force_insert=True)
                enqueue(row.pk)

        return body

    return tuple(map(transact, (ours, plain, google)))


def counted(body: Callable[[], None]) -> Counter[str]:
    """The writes, and our calls of the queue, that so many transactions make."""
    from django.db import connection

    from defer_core.config import current

    found: Counter[str] = Counter()

    def statement(execute: Any, sql: str, *more: Any) -> Any:
        found["writes"] += sql.startswith(("INSERT", "UPDATE", "DELETE"))
        return execute(sql, *more)

    sender = current().the_transport
    sent = sender.send

    def send(*message: Any, **options: Any) -> Any:
        found["calls"] += 1
        return sent(*message, **options)

    sender.send = send  # type: ignore[method-assign]
    with connection.execute_wrapper(statement):
        for _ in range(TRANSACTIONS):
            body()
    del sender.send  # type: ignore[attr-defined]
    return found


def timed(*bodies: Callable[[], None]) -> list[float]:
    """Seconds of each transaction, the median of rounds taken in turn."""
    found: list[list[float]] = [[] for _ in bodies]
    for number in range(ROUNDS + 1):
        for index, body in enumerate(bodies):
            took = wall(lambda body=body: [body() for _ in range(TRANSACTIONS)])  # type: ignore[misc]
            if number:  # the first round warms up
                found[index].append(took / TRANSACTIONS)
    return [statistics.median(each) for each in found]


def per(count: int) -> str:
    """A count of all as one of each."""
    return f"{count / TRANSACTIONS:g}"
