"""The last scene: every order is booked by an iteration, whose server is killed half-way."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from django.db.models import Sum
from orders import tasks
from orders.models import Customer, JournalEntry, LedgerEntry, Order

from defer_iteration import IterationHandle, IterationState, Shard, defer_iteration_with_finalize

from .checks import Check
from .scenes import Stage

SHARDS = 8
KILL_AT = 0.6
"""The share of the orders after which the server is killed."""
STANDSTILL = 60.0
"""Seconds without a new booking after which the scene gives up."""


def iteration(stage: Stage) -> Iterator[Check]:
    """An iteration over all orders in 8 shards, and `kill -9`"""
    _fill(stage.rows)
    rows, total = Order.objects.count(), Order.objects.aggregate(total=Sum("total"))["total"]
    stage.display.say(f"defer_iteration_with_finalize(Order.objects.all(), book, close_the_books, _shards={SHARDS})")
    handle = defer_iteration_with_finalize(
        Order.objects.all(), tasks.book, tasks.close_the_books, _shards=SHARDS, _delete_marker=False
    )
    killed_at = _watch(stage, handle, rows)
    yield Check(
        scene="iteration",
        claim="the server was killed with orders still to book",
        held=0 < killed_at < rows,
        detail=f"at {killed_at:,} of {rows:,}",
    )
    progress = handle.progress()
    yield Check(
        scene="iteration",
        claim=f"all {SHARDS} shards were done nevertheless",
        held=progress.state is IterationState.DONE and [each.done for each in progress.shards] == [True] * SHARDS,
        detail=f"{progress.rows:,} rows",
    )
    booked = LedgerEntry.objects.aggregate(total=Sum("amount"))["total"]
    yield Check(
        scene="iteration",
        claim="every order is in the ledger, once",
        held=LedgerEntry.objects.count() == rows and booked == total,
        detail=f"{LedgerEntry.objects.count():,} entries, {booked or 0:,} cents",
    )
    yield from _finalized(stage, handle, rows, total)


def _fill(rows: int) -> None:
    """Orders, up to a number of rows."""
    customer = Customer.objects.create(name="Grace")
    missing = rows - Order.objects.count()
    orders = (Order(customer=customer, total=100 + number % 900) for number in range(missing))
    Order.objects.bulk_create(orders, batch_size=5000)


def _watch(stage: Stage, handle: IterationHandle, rows: int) -> int:
    """Show the progress to the end, and kill the server on the way. Returns how many bookings there were then."""
    killed_at, booked, moved = 0, 0, time.monotonic()
    while not (progress := handle.progress()).state.is_over and time.monotonic() - moved < STANDSTILL:
        before, booked = booked, LedgerEntry.objects.count()
        moved = moved if booked == before else time.monotonic()
        stage.display.progress(booked, rows, _parts(progress.shards, rows))
        if not killed_at and booked > rows * KILL_AT:
            said = len(stage.dispatcher.output())
            stage.display.say(f"kill -9 {stage.server.kill()} (the server), with {booked:,} orders booked")
            killed_at = LedgerEntry.objects.count()
            stage.server.start()
            stage.cut.append(stage.dispatcher.output()[said:])
            stage.display.say(f"started again as process {stage.server.running.pid}")
        time.sleep(0.2)
    stage.display.progress(LedgerEntry.objects.count(), rows, _parts(progress.shards, rows))
    return killed_at


def _parts(shards: Sequence[Shard], rows: int) -> list[float]:
    """Of each shard, the part that its checkpoints have stored as done."""
    return [1.0 if shard.done else min(shard.rows * len(shards) / rows, 1.0) for shard in shards]


def _finalized(stage: Stage, handle: IterationHandle, rows: int, total: int) -> Iterator[Check]:
    for line in stage.server.output().splitlines():
        if line.startswith("finalize: "):
            stage.display.say(f"the server says: {line}")
    entries = JournalEntry.objects.filter(task="close_the_books", subject=handle.id)
    yield Check(scene="finalize", claim="it ran once", held=entries.count() == 1, detail=f"{entries.count()} call(s)")
    counted = entries[0].text if entries else "nothing"
    yield Check(
        scene="finalize",
        claim="it got the counters of all shards, merged",
        held=counted == f"{total} cents, {rows} orders",
        detail=counted,
    )
